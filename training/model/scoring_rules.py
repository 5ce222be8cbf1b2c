"""Scoring rules: how the score is computed from an image and its reconstruction.

Each is a small module that becomes part of the published model. docs/scoring.md says when to use which, with the
evidence.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

# Lower limit for the denominators: mean square, mean and total variation of an image that is white on 1 % of its area.
# Without it, rounding errors of an empty image would be divided by zero. On MNIST any value from 0.001 to 0.05 gives
# the same figures.
FLOOR: Final = 0.01
# The side of a window is an eighth of the image's side. A defect should fill its window approximately.
WINDOW_SHARE: Final = 8
# The MSE of a reconstruction that is wrong by 1 % of the range. Below it, the position of the error means nothing.
MSE_FLOOR: Final = 1e-4


def squared_error(images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
    """Squared error per value, without broadcasting.

    ``nn.MSELoss`` only warns about (B, 1, 28, 28) and (B, 28, 28): it broadcasts them to (B, B, 28, 28), and the
    network learns the mean image.

    Raises:
        ValueError: the shapes differ (``torch.jit.Error`` once scripted).
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"reconstruction of shape {reconstructions.shape} for images of shape {images.shape}")
    return (images - reconstructions).square()


def _energy(images: torch.Tensor, reconstructions: torch.Tensor, floor: float) -> torch.Tensor:
    """(N,): the larger of the two mean squares, at least ``floor``."""
    larger = torch.maximum(images.square().flatten(1).mean(1), reconstructions.square().flatten(1).mean(1))
    return larger.clamp(min=floor)


def _extent(images: torch.Tensor, reconstructions: torch.Tensor, floor: float) -> torch.Tensor:
    """(N,): mean × √variation, a measure of how much there is in the image.

    The mean is the larger of the two mean values. The variation is the geometric mean of the two total variations; a
    total variation is the mean absolute difference of neighbours in a row plus that of neighbours in a column. Each is
    at least ``floor``.
    """
    both = torch.stack([images, reconstructions])
    mean = both.flatten(2).mean(2).amax(0).clamp(min=floor)
    variation = both.diff(dim=4).abs().flatten(2).mean(2) + both.diff(dim=3).abs().flatten(2).mean(2)
    return mean * variation.clamp(min=floor).prod(0).pow(0.25)


def _neighbourhood_mean(values: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W): the mean over 3 × 3 pixels; at the border, over the pixels that exist.

    For a batch of small images, these additions take a seventh of the time of average pooling.
    """
    rows = values.clone()
    rows[:, :, :, 1:] += values[:, :, :, :-1]
    rows[:, :, :, :-1] += values[:, :, :, 1:]
    total = rows.clone()
    total[:, :, 1:] += rows[:, :, :-1]
    total[:, :, :-1] += rows[:, :, 1:]
    total /= 9
    for edge in (0, -1):
        total[:, :, edge] *= 1.5
        total[:, :, :, edge] *= 1.5
    return total


def _smoothed(images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
    """(N,): mean square of the mean-filtered difference.

    The 3 × 3 mean filter tolerates the slight blur of reconstructions and small shifts of strokes.
    """
    return _neighbourhood_mean(images - reconstructions).square().flatten(1).mean(1)


def _largest_window(error: torch.Tensor, share: int) -> torch.Tensor:
    """(N,): the largest mean over the channels and a square window with a side of max(2, side // share) pixels."""
    side = max(2, min(error.shape[2], error.shape[3]) // share)
    return nn.functional.avg_pool2d(error.mean(1, keepdim=True), side, stride=1).flatten(1).amax(1)


class Mse(nn.Module):
    """The MSE: mean squared error over channels and pixels."""

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        return squared_error(images, reconstructions).flatten(1).mean(1)


class Smoothed(nn.Module):
    """Mean square of the difference after a 3 × 3 mean filter."""

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        return _smoothed(images, reconstructions)


class SmoothedRelative(nn.Module):
    """The smoothed error, divided by the larger mean square of the image and its reconstruction."""

    def __init__(self) -> None:
        super().__init__()
        self.floor = FLOOR

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        smoothed = _smoothed(images, reconstructions)
        return smoothed / _energy(images, reconstructions, self.floor)


class SmoothedExtent(nn.Module):
    """The smoothed error, divided by the mean times the root of the total variation.

    Normal images with more ink and longer outlines have larger errors. The variation of the reconstruction counts as
    well: noise has a large variation, its reconstruction has not, and the score of noise must not become low.
    """

    def __init__(self) -> None:
        super().__init__()
        self.floor = FLOOR

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        smoothed = _smoothed(images, reconstructions)
        return smoothed / _extent(images, reconstructions, self.floor)


class Local(nn.Module):
    """The largest mean squared error in a square window; its side is an eighth of the image's shorter side."""

    def __init__(self) -> None:
        super().__init__()
        self.share = WINDOW_SHARE

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        return _largest_window(squared_error(images, reconstructions), self.share)


class LocalRelative(nn.Module):
    """The largest mean squared error in a window, divided by the MSE: how concentrated the error is."""

    def __init__(self) -> None:
        super().__init__()
        self.share = WINDOW_SHARE
        self.floor = MSE_FLOOR

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        error = squared_error(images, reconstructions)
        return _largest_window(error, self.share) / error.flatten(1).mean(1).clamp(min=self.floor)


@dataclass(frozen=True)
class ScoringRule:
    """A scoring rule, with the name and formula for the manifest."""

    name: str
    formula: str
    module: type[nn.Module]


SCORING_RULES: Final = {
    rule.name: rule
    for rule in (
        ScoringRule("mse", "mean((x - x̂)²)", Mse),
        ScoringRule("smoothed", "mean(box3(x - x̂)²)", Smoothed),
        ScoringRule(
            "smoothed-relative",
            f"mean(box3(x - x̂)²) / max(mean(x²), mean(x̂²), {FLOOR})",
            SmoothedRelative,
        ),
        ScoringRule(
            "smoothed-extent",
            f"mean(box3(x - x̂)²) / (max(mean(x), mean(x̂), {FLOOR}) · (tv(x) · tv(x̂))^¼), "
            f"tv = max(mean|Δrow| + mean|Δcolumn|, {FLOOR})",
            SmoothedExtent,
        ),
        ScoringRule("local", f"max over windows of side/{WINDOW_SHARE} of mean((x - x̂)²)", Local),
        ScoringRule(
            "local-relative",
            f"max over windows of side/{WINDOW_SHARE} of mean((x - x̂)²) / max(mean((x - x̂)²), {MSE_FLOOR})",
            LocalRelative,
        ),
    )
}


DEFAULT_SCORING_RULE: Final = "smoothed-extent"

FEATURE_RULE: Final = ScoringRule(
    "features", "max over places of exp(mean over heads of (log(smoothed error) - mean) / deviation)", nn.Identity
)
"""Of the recipe ``features``, whose network computes the score itself."""


class ScoredAutoencoder(nn.Module):
    """A network with its scoring rule; the content of a bundle's ``model.pt``.

    Args:
        network: (N, C, H, W) → reconstruction of the same shape.
        rule: images, reconstructions → (N,).
    """

    def __init__(self, network: nn.Module, rule: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.rule = rule

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, C, H, W) float32 in [0, 1] → reconstruction (N, C, H, W), mse (N,), score (N,), map (N, 1, H, W)."""
        reconstructions = self.network(images)
        error_map = squared_error(images, reconstructions).mean(1, keepdim=True)
        return reconstructions, error_map.flatten(1).mean(1), self.rule(images, reconstructions), error_map
