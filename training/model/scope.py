"""Out of scope: whether an image looks like the training images at all, by statistics of the whole image.

The distance of an image is that of Mahalanobis, from the mean of the fit images' statistics, with their correlations
shrunk towards none. The limit comes from distances out of fold: of each fit image, from the others. It is their 99.9 %
quantile, extrapolated by an exponential tail as there are seldom a thousand, or the largest of them if that is more;
and a quarter more, because the next batch of the product differs a little from this one. For few images it is wider
still: their largest distance says little, and one calibration image beyond the limit can raise the threshold of few. It
is never below twice the least deviations: where all images are alike, a broken part is farther from them than any
other, and still shows the product.

An image beyond the limit gets a score above all others. Then it is an anomaly at any sensible threshold; and since the
threshold is calibrated with scores that are raised in the same way, normal images that happen to be out of scope count
among the false alarms that it promises.

Sources: Lee, Lee, Lee and Shin, "A simple unified framework for detecting out-of-distribution samples", 2018, for
Mahalanobis distances of features; Pickands, "Statistical inference using extreme order statistics", 1975, for the tail.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from training.model.folds import Fold, others
from training.model.scoring_rules import ScoredAutoencoder

FOLDS: Final = 5
RATE: Final = 0.001
"""Share of the normal images that the limit is meant to exclude."""

_SHRINKAGE: Final = 0.2
_COMPONENTS: Final = 64
_TAIL: Final = 0.1  # share of the distances that the exponential tail is fitted to
_MARGIN: Final = 1.25
_FEW: Final = 5  # images: of so many, the limit is twice as wide
_NEAREST: Final = 2.0
_FAR_ABOVE: Final = 100.0  # times the highest score of a fit image
_BATCH: Final = 256
_MOST: Final = 1e6  # multiples of the limit; keeps scores finite

_CELLS: Final = 4  # of the thumbnail, along each side
_LEVELS: Final = (0.25, 0.5, 0.75)
_DARK: Final = 0.01  # added before logarithms: contrasts below are rounding errors of 8-bit images
_PIXEL_DEVIATION: Final = 0.03  # least of pixel statistics: on a bench that never changes, lamps age


class Distance(nn.Module):
    """Mahalanobis distance of statistics from the mean of the fit images', per dimension.

    Args:
        statistics: (N, S), of the fit images.
        least: (S,), smallest standard deviation of each, positive.
    """

    def __init__(self, statistics: torch.Tensor, least: torch.Tensor) -> None:
        super().__init__()
        values = statistics.double()
        mean, deviation = values.mean(0), torch.maximum(values.std(0, correction=0), least.double())
        standard = (values - mean) / deviation
        variances, directions = torch.linalg.eigh(standard.T @ standard / len(values))  # ascending
        variances = (1 - _SHRINKAGE) * variances.clamp(min=0) + _SHRINKAGE
        kept = min(_COMPONENTS, len(variances))
        rest = variances[: max(1, len(variances) - kept)].mean()
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.directions: torch.Tensor
        self.gains: torch.Tensor
        self.register_buffer("mean", mean.float())
        self.register_buffer("deviation", deviation.float())
        self.register_buffer("directions", directions[:, -kept:].float().contiguous())
        self.register_buffer("gains", (1 / variances[-kept:] - 1 / rest).float())
        self.rest = 1 / float(rest)

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        """(N, S) → (N,), about 1 for images like the fit images."""
        standard = (statistics - self.mean) / self.deviation
        along = (standard @ self.directions).square() @ self.gains
        return ((standard.square().sum(1) * self.rest + along) / statistics.shape[1]).clamp(min=0.0).sqrt()


class Scope(nn.Module):
    """The distance of an image's statistics as a multiple of the limit; raises the score beyond it.

    Args:
        distance: statistics (N, S) → (N,).
        limit: of the distance.
        largest: distance of a fit image, out of fold.
        ceiling: a score far above those of fit images.
    """

    def __init__(self, distance: nn.Module, limit: float, largest: float, ceiling: float) -> None:
        super().__init__()
        self.distance = distance
        self.limit, self.largest, self.ceiling = limit, largest, ceiling
        self.most = _MOST

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        """(N, S) → (N,): above 1 for images that are out of scope."""
        scope: torch.Tensor = self.distance(statistics) / self.limit
        return scope.clamp(max=self.most)

    def added(self, scope: torch.Tensor) -> torch.Tensor:
        """(N,) → (N,): what is added to scores; 0 for images that are not out of scope."""
        return torch.where(scope > 1, scope * self.ceiling, torch.zeros_like(scope))


def fit_scope(
    statistics: torch.Tensor, least: torch.Tensor, folds: Sequence[Fold], scores: torch.Tensor
) -> tuple[Scope, torch.Tensor]:
    """The check for (N, S) statistics of normal images, and what it adds to the scores of these out of fold.

    Args:
        statistics: of the fit images.
        least: (S,), smallest standard deviation of each, positive.
        folds: together all positions, each once; images of one object are in one fold.
        scores: (N,), of the fit images.

    Returns:
        The check, and (N,) what is added to each image's score by a check that has not seen its fold.
    """
    count = len(statistics)
    distances = torch.empty(count)
    for fold in folds:
        distances[fold] = Distance(statistics[others(fold, count)], least)(statistics[fold])
    largest, ceiling = float(distances.max()), max(1.0, _FAR_ABOVE * float(scores.max()))
    scope = Scope(Distance(statistics, least), limit_of(distances), largest, ceiling).eval()
    added = torch.empty(count)
    for fold in folds:
        added[fold] = scope.added(distances[fold] / limit_of(distances[others(fold, count)]))
    return scope, added


def limit_of(distances: torch.Tensor) -> float:
    """The distance that one normal image in a thousand exceeds, with a margin: see the module docstring.

    Args:
        distances: (N,), of normal images, out of fold.
    """
    ascending = distances.double().sort().values
    begin = ascending[int((1 - _TAIL) * len(ascending))]
    excess = (ascending[ascending >= begin] - begin).mean()
    extrapolated = begin + math.log(_TAIL / RATE) * excess
    margin = _MARGIN * (1 + _FEW / len(ascending))
    return max(margin * float(extrapolated), margin * float(ascending[-1]), _NEAREST)


class PixelStatistics(nn.Module):
    """A coarse thumbnail, brightness, edges and contrast of images.

    An image that is nearly empty differs little from a dark one with a small object; the logarithms of edges and
    contrast tell them apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.levels, self.dark = _CELLS, _LEVELS, _DARK

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) in [0, 1] → (N, S)."""
        height, width = images.shape[2], images.shape[3]
        cells = [max(1, height // self.cells), max(1, width // self.cells)]
        thumbnail = nn.functional.avg_pool2d(images, cells).flatten(1)
        flat = images.flatten(1)
        brighter = [(flat - level).clamp(min=0.0).mean(1) for level in self.levels]
        contrast = (flat - flat.mean(1, keepdim=True)).square().mean(1).sqrt()
        across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().flatten(1).mean(1)
        down = (images[:, :, 1:] - images[:, :, :-1]).abs().flatten(1).mean(1)
        edges = (torch.stack([across, down, contrast], dim=1) + self.dark).log()
        return torch.cat([thumbnail, torch.stack(brighter, dim=1), edges], dim=1)


def fit_pixel_scope(images: torch.Tensor, folds: Sequence[Fold], scores: torch.Tensor) -> tuple[Scope, torch.Tensor]:
    """The check for (N, C, H, W) normal images by their pixels; otherwise as :func:`fit_scope`."""
    statistics = torch.cat([*map(PixelStatistics(), torch.split(images, _BATCH))])
    return fit_scope(statistics, torch.full(statistics.shape[1:], _PIXEL_DEVIATION), folds, scores)


class ScopedAutoencoder(nn.Module):
    """A pixel model that says whether an image looks like the training images at all.

    Args:
        model: images → reconstruction, mse, score, error map.
        scope: of pixel statistics.
    """

    def __init__(self, model: ScoredAutoencoder, scope: Scope) -> None:
        super().__init__()
        self.model, self.scope, self.statistics = model, scope, PixelStatistics()

    def forward(
        self, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, C, H, W) in [0, 1] → reconstruction (N, C, H, W), mse (N,), score (N,), map (N, 1, H, W), scope (N,).

        The map of an image that is out of scope is even: no place of it is the defect.
        """
        rebuilt, mse, score, error_map = self.model(images)
        scope = self.scope(self.statistics(images))
        even = error_map.flatten(1).amax(1).reshape(-1, 1, 1, 1).expand_as(error_map)
        seen = torch.where(scope.reshape(-1, 1, 1, 1) > 1, even, error_map)
        return rebuilt, mse, score + self.scope.added(scope), seen, scope
