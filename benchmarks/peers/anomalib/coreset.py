"""The greedy choice of PatchCore's memory, without comparing every point with every centre."""

import torch

POOL = 8192
CHUNK = 512


def farthest_points(points: torch.Tensor, start: int, count: int) -> torch.Tensor:
    """Indices of points, each the farthest from those chosen before it.

    The choice is that of anomalib's ``KCenterGreedy``, which measures all points again after each choice. Here only a
    pool of the farthest points is up to date: distances to the nearest centre never grow, so an old distance is an
    upper bound, and the next point comes from the pool while it is at least as far as the farthest point outside.

    Args:
        points: (N, D).
        start: index of the first point.
        count: how many to choose, at most N.

    Returns:
        (count,), in the order of their choice.
    """
    points = points - points.mean(0)  # rounding errors grow with the norms
    chosen = torch.empty(count, dtype=torch.long)
    centres = torch.empty(count, points.shape[1])
    chosen[0], centres[0], done = start, points[start], 1
    nearest = torch.cat([_squared_distances(part, centres[:1]).squeeze(1) for part in points.split(POOL)])
    seen = torch.ones(len(points), dtype=torch.long)  # the number of centres that a point was compared with
    nearest[start] = 0
    while done < count:
        farthest, pool = nearest.topk(min(POOL, len(points)))
        bound = float(farthest[-1]) if len(pool) < len(points) else 0.0
        pool = pool[seen[pool].argsort()]
        for part in pool.split(CHUNK):
            missed = centres[int(seen[part[0]]) : done]
            if len(missed):
                nearest[part] = torch.minimum(nearest[part], _squared_distances(points[part], missed).amin(1))
        places, distances = points[pool], nearest[pool]
        squares = places.square().sum(1)
        while done < count:
            farthest_one = int(distances.argmax())
            if distances[farthest_one] < bound:
                break
            centre = places[farthest_one]
            chosen[done], centres[done], done = pool[farthest_one], centre, done + 1
            to_centre = torch.addmv(squares, places, centre, alpha=-2).add_(squares[farthest_one]).clamp_min_(0)
            distances = torch.minimum(distances, to_centre)
            distances[farthest_one] = 0
        nearest[pool], seen[pool] = distances, done
    return chosen


def _squared_distances(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(n, D), (m, D) → (n, m)."""
    products = torch.addmm(others.square().sum(1), some, others.T, alpha=-2)
    return products.add_(some.square().sum(1, keepdim=True)).clamp_min_(0)
