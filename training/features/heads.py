"""What rebuilds features, a memory of normal ones and their principal components, and a density of them.

The first two are autoencoders in closed form. The memory rebuilds the features of a place by the nearest of the items
that it holds (hard addressing; Gong et al., "Memorizing normality to detect anomaly", 2019); the principal components
rebuild them by a projection. What they rebuild badly, as a map over the places, is the anomaly.
"""

from typing import Final

import torch
from torch import nn

_PLACES: Final = 40_000
_ITEMS: Final = 2_000
_PROJECTION: Final = 48  # dimensions in which the greedy choice measures distances
_CHUNK: Final = 8  # images whose features are double precision at the same time
_ROUND: Final = 8  # items that one pass over all places chooses
_CANDIDATES: Final = 8  # places that each of them is chosen from
_SHRINKAGE: Final = 0.01  # of the mean variance, added to each
_LEAST: Final = 1e-6  # squared distances below are rounding errors


class Memory(nn.Module):
    """Squared distance of each place's features to the nearest item.

    Args:
        mean: (F,), of the fit images' features, by channel.
        std: (F,), likewise.
        items: (K, F), standardised.
    """

    def __init__(self, mean: torch.Tensor, std: torch.Tensor, items: torch.Tensor) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.items: torch.Tensor
        self.squares: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("items", -2 * items.T.contiguous())  # as the product needs them
        self.register_buffer("squares", items.square().sum(1))
        self.least = _LEAST

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, F, h, w) → (N, 1, h, w), positive."""
        count, _, height, width = features.shape
        places = ((features.permute(0, 2, 3, 1) - self.mean) / self.std).flatten(0, 2)
        nearest = torch.addmm(self.squares, places, self.items).amin(1)
        distances = (places.square().sum(1) + nearest).clamp_min(self.least)
        return distances.reshape(count, 1, height, width)


class Components(nn.Module):
    """Squared error of each place's features outside the first principal components.

    Args:
        mean: (D,), of the fit images' features.
        residual: (D, R), orthonormal directions outside the components.
    """

    def __init__(self, mean: torch.Tensor, residual: torch.Tensor) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.residual: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("residual", residual)
        self.least = _LEAST

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D, h, w) → (N, 1, h, w), positive."""
        places = features.permute(0, 2, 3, 1) - self.mean
        return (places @ self.residual).square().sum(3).clamp_min(self.least).unsqueeze(1)


class Density(nn.Module):
    """Mean square of each place's whitened features: how far they are from the mean of a normal distribution.

    Args:
        mean: (F,), of the fit images' features.
        whitening: (F, F).
    """

    def __init__(self, mean: torch.Tensor, whitening: torch.Tensor) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.whitening: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)
        self.least = _LEAST

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, F, h, w) → (N, 1, h, w), positive."""
        places = features.permute(0, 2, 3, 1) - self.mean
        return (places @ self.whitening).square().mean(3).clamp_min(self.least).unsqueeze(1)


def fit_memory(features: torch.Tensor, *, seed: int) -> Memory:
    """A memory of (N, F, h, w) features of normal images: items that a greedy coreset picks from random places.

    Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", 2018.
    """
    mean, covariance = _moments(features)
    std = covariance.diagonal().sqrt().clamp(min=_LEAST)
    generator = torch.Generator().manual_seed(seed)
    places = (_random_places(features, _PLACES, generator) - mean.float()) / std.float()
    chosen = _coreset(places, min(_ITEMS, max(1, len(places) // 4)), generator)
    return Memory(mean.float(), std.float(), places[chosen])


def fit_components(features: torch.Tensor, kept: int) -> Components:
    """Principal components of (N, D, h, w) features of normal images, of which ``kept`` rebuild."""
    mean, covariance = _moments(features)
    _, vectors = torch.linalg.eigh(covariance)  # ascending eigenvalues
    return Components(mean.float(), vectors[:, : max(1, len(vectors) - kept)].float().contiguous())


def fit_density(features: torch.Tensor) -> Density:
    """The normal distribution of (N, F, h, w) features of normal images, with its covariance shrunk a little."""
    mean, covariance = _moments(features)
    values, vectors = torch.linalg.eigh(covariance)
    values = values + _SHRINKAGE * values.mean() + _LEAST
    return Density(mean.float(), (vectors / values.sqrt()).float())


def _moments(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (F,) and covariance (F, F) over all places, float64, of (N, F, h, w) features of any precision."""
    width = features.shape[1]
    total, products, count = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64), 0
    for chunk in torch.split(features, _CHUNK):
        places = _places(chunk).double()
        total += places.sum(0)
        products += places.T @ places
        count += len(places)
    mean = total / count
    return mean, (products / count - torch.outer(mean, mean)) * (count / max(1, count - 1))


def _random_places(features: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """(K, F) float32: the features of at most ``most`` places, drawn without replacement."""
    count, _, height, width = features.shape
    chosen = torch.randperm(count * height * width, generator=generator)[:most]
    image, place = chosen // (height * width), chosen % (height * width)
    return features[image, :, place // width, place % width].float()


def _places(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _coreset(places: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Indices of places, each the farthest from those before it, measured in a random projection."""
    projection = torch.randn(places.shape[1], _PROJECTION, generator=generator) / _PROJECTION**0.5
    points = places @ projection
    squares = points.square().sum(1)
    nearest = torch.full((len(points),), torch.inf)
    chosen = torch.randint(len(points), (1,), generator=generator)
    latest = chosen
    while True:
        products = torch.addmm(squares[latest], points, points[latest].T, alpha=-2)
        nearest = torch.minimum(nearest, squares + products.amin(1))
        if len(chosen) == count:
            return chosen
        latest = _farthest(points, nearest, min(_ROUND, count - len(chosen)))
        chosen = torch.cat([chosen, latest])


def _farthest(points: torch.Tensor, nearest: torch.Tensor, count: int) -> torch.Tensor:
    """The next ``count`` points of the greedy choice, if they are among the farthest: one pass over all serves many."""
    distances, candidates = nearest.topk(min(len(points), _CANDIDATES * count))
    between = torch.cdist(points[candidates], points[candidates]).square()
    chosen = torch.empty(count, dtype=torch.long)
    for at in range(count):
        chosen[at] = distances.argmax()
        distances = torch.minimum(distances, between[chosen[at]])
    return candidates[chosen]
