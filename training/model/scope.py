"""Out of scope: whether an image looks like the training images at all, by statistics of the whole image.

The distance of an image is that of Mahalanobis, from the mean of the fit images' statistics, with their correlations
shrunk towards none. The limit comes from distances out of fold: of each fit image, from the others. It is their 99.9 %
quantile, extrapolated by an exponential tail as there are seldom a thousand, or the largest of them if that is more;
and a quarter more, because the next batch of the product differs a little from this one. For few images it is wider
still: their largest distance says little, and one calibration image beyond the limit can raise the threshold of few. It
is never below twice the least deviations: where all images are alike, a broken part is farther from them than any
other, and still shows the product.

An inverted photograph has nearly the features of the original. What tells them apart is whether details are bright on
dark or dark on bright: the skewness of what a local mean leaves over. So each image has a second distance, of its
skewness from the median towards the opposite one, with a limit likewise; but at least half-way to where the inverted
fit images are, so that a defect that darkens a part seldom looks like an inverted picture. The larger distance counts.

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
_FIRST_INVERTED: Final = 0.05  # share of the inverted images that may be nearer than where they are said to begin
_NEAREST_SKEWNESS: Final = 0.5  # where normal images are flat, a defect alone decides the sign
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


class Polarity(nn.Module):
    """How far the details of an image are from normal ones, towards those of inverted images.

    Args:
        skewness: (N,) :func:`skewness_of` the fit images.
    """

    def __init__(self, skewness: torch.Tensor) -> None:
        super().__init__()
        median = float(skewness.median())
        self.median, self.sign = median, 1.0 if median >= 0 else -1.0
        inverted = torch.quantile(self._towards(-skewness).double(), _FIRST_INVERTED)
        limit = _beyond(self._towards(skewness))
        self.limit = max(limit, (limit + float(inverted)) / 2, _NEAREST_SKEWNESS)

    def forward(self, skewness: torch.Tensor) -> torch.Tensor:
        """(N,) → (N,), as a multiple of the limit."""
        return self._towards(skewness).clamp(min=0.0) / self.limit

    def _towards(self, skewness: torch.Tensor) -> torch.Tensor:
        return self.sign * (self.median - skewness)


def skewness_of(images: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) in [0, 1] → (N,): skewness of the details, positive if bright on dark; 0 for flat images."""
    grey = images.mean(1, keepdim=True)
    # The mean of 9 × 9 pixels by sums of three and of three threes, a tenth of the time of a pooling layer.
    wide = nn.functional.pad(grey, [4, 4, 4, 4], mode="replicate")
    threes = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    nines = threes[..., :-6] + threes[..., 3:-3] + threes[..., 6:]
    threes = nines[..., :-2, :] + nines[..., 1:-1, :] + nines[..., 2:, :]
    details = (grey - (threes[..., :-6, :] + threes[..., 3:-3, :] + threes[..., 6:, :]) / 81).flatten(1)
    details = details - details.mean(1, keepdim=True)
    squares = details * details
    spread = squares.mean(1).sqrt()
    return (squares * details).mean(1) / (spread * spread * spread + 1e-9)


class Scope(nn.Module):
    """The distance of an image's statistics as a multiple of the limit; raises the score beyond it.

    Args:
        distance: statistics (N, S) → (N,).
        polarity: skewness (N,) → (N,).
        limit: of the distance.
        largest: distance of a fit image, out of fold.
        ceiling: a score far above those of fit images.
    """

    def __init__(self, distance: nn.Module, polarity: nn.Module, limit: float, largest: float, ceiling: float) -> None:
        super().__init__()
        self.distance, self.polarity = distance, polarity
        self.limit, self.largest, self.ceiling = limit, largest, ceiling
        self.most = _MOST

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        """(N, S + 1), the last one the skewness → (N,): above 1 for images that are out of scope."""
        distance: torch.Tensor = self.distance(statistics[:, :-1]) / self.limit
        return torch.maximum(distance, self.polarity(statistics[:, -1])).clamp(max=self.most)

    def added(self, scope: torch.Tensor) -> torch.Tensor:
        """(N,) → (N,): what is added to scores; 0 for images that are not out of scope."""
        return torch.where(scope > 1, scope * self.ceiling, torch.zeros_like(scope))


def fit_scope(
    statistics: torch.Tensor, least: torch.Tensor, folds: Sequence[Fold], scores: torch.Tensor
) -> tuple[Scope, torch.Tensor]:
    """The check for statistics of normal images, and what it adds to the scores of these out of fold.

    Args:
        statistics: (N, S + 1), of the fit images, the last one the skewness.
        least: (S,), smallest standard deviation of each, positive.
        folds: together all positions, each once; images of one object are in one fold.
        scores: (N,), of the fit images.

    Returns:
        The check, and (N,) what is added to each image's score by a check that has not seen its fold.
    """
    count = len(statistics)
    shown, skewness = statistics[:, :-1], statistics[:, -1]
    distances = torch.empty(count)
    for fold in folds:
        distances[fold] = Distance(shown[others(fold, count)], least)(shown[fold])
    largest, ceiling = float(distances.max()), max(1.0, _FAR_ABOVE * float(scores.max()))
    scope = Scope(Distance(shown, least), Polarity(skewness), limit_of(distances), largest, ceiling).eval()
    added = torch.empty(count)
    for fold in folds:
        outside = others(fold, count)
        by_distance = distances[fold] / limit_of(distances[outside])
        added[fold] = scope.added(torch.maximum(by_distance, Polarity(skewness[outside])(skewness[fold])))
    return scope, added


def limit_of(distances: torch.Tensor) -> float:
    """The distance that one normal image in a thousand exceeds, with a margin: see the module docstring.

    Args:
        distances: (N,), of normal images, out of fold.
    """
    return max(_beyond(distances), _NEAREST)


def _beyond(distances: torch.Tensor) -> float:
    ascending = distances.double().sort().values
    begin = ascending[int((1 - _TAIL) * len(ascending))]
    excess = (ascending[ascending >= begin] - begin).mean()
    extrapolated = begin + math.log(_TAIL / RATE) * excess
    margin = _MARGIN * (1 + _FEW / len(ascending))
    return margin * max(float(extrapolated), float(ascending[-1]))


class PixelStatistics(nn.Module):
    """A coarse thumbnail, brightness, edges and contrast of images.

    An image that is nearly empty differs little from a dark one with a small object; the logarithms of edges and
    contrast tell them apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.levels, self.dark = _CELLS, _LEVELS, _DARK

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) in [0, 1] → (N, S + 1), the last one the skewness."""
        height, width = images.shape[2], images.shape[3]
        cells = [max(1, height // self.cells), max(1, width // self.cells)]
        thumbnail = nn.functional.avg_pool2d(images, cells).flatten(1)
        flat = images.flatten(1)
        brighter = [(flat - level).clamp(min=0.0).mean(1) for level in self.levels]
        contrast = (flat - flat.mean(1, keepdim=True)).square().mean(1).sqrt()
        across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().flatten(1).mean(1)
        down = (images[:, :, 1:] - images[:, :, :-1]).abs().flatten(1).mean(1)
        edges = (torch.stack([across, down, contrast], dim=1) + self.dark).log()
        skewness = skewness_of(images).unsqueeze(1)
        return torch.cat([thumbnail, torch.stack(brighter, dim=1), edges, skewness], dim=1)


def fit_pixel_scope(images: torch.Tensor, folds: Sequence[Fold], scores: torch.Tensor) -> tuple[Scope, torch.Tensor]:
    """The check for (N, C, H, W) normal images by their pixels; otherwise as :func:`fit_scope`."""
    statistics = torch.cat([*map(PixelStatistics(), torch.split(images, _BATCH))])
    return fit_scope(statistics, torch.full((statistics.shape[1] - 1,), _PIXEL_DEVIATION), folds, scores)


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

        The map stays, as a large defect can put an image of a product that never changes out of scope.
        """
        rebuilt, mse, score, error_map = self.model(images)
        scope = self.scope(self.statistics(images))
        return rebuilt, mse, score + self.scope.added(scope), error_map, scope
