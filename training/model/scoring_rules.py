"""Scoring rules: from an image and its reconstruction to the error that decides.

Each is a small module that travels inside the bundle; docs/scoring.md says when to use which, with the evidence.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

# The mean square, ink or outline below which an image counts as empty: white on 1 % of it. Without a floor an empty
# image would divide rounding errors by nothing; on MNIST any floor from 0.001 to 0.05 gives the same figures.
FLOOR: Final = 0.01
# A defect should about fill its window: an eighth of the image's side.
WINDOW_SHARE: Final = 8
# The MSE of an image rebuilt to one grey level in 100: below it, where the error gathers says nothing.
MSE_FLOOR: Final = 1e-4


def squared_error(images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
    """Per-value squared error; refuses to broadcast.

    ``nn.MSELoss`` only warns when (B, 1, 28, 28) meets (B, 28, 28), expands the pair to (B, B, 28, 28) and so
    trains towards the mean image.

    Raises:
        ValueError: the shapes differ (``torch.jit.Error`` once scripted).
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"reconstruction of shape {reconstructions.shape} for images of shape {images.shape}")
    return (images - reconstructions).square()


def _energy(images: torch.Tensor, reconstructions: torch.Tensor, floor: float) -> torch.Tensor:
    """(N,): the larger mean square of the two, at least the floor."""
    larger = torch.maximum(images.square().flatten(1).mean(1), reconstructions.square().flatten(1).mean(1))
    return larger.clamp(min=floor)


def _extent(images: torch.Tensor, reconstructions: torch.Tensor, floor: float) -> torch.Tensor:
    """(N,): ink × √outline.

    Ink is the larger mean of the two; outline the geometric mean of the two total variations, which are the mean step
    between neighbours in a row plus that in a column. Each is at least the floor.
    """
    both = torch.stack([images, reconstructions])
    ink = both.flatten(2).mean(2).amax(0).clamp(min=floor)
    variation = both.diff(dim=4).abs().flatten(2).mean(2) + both.diff(dim=3).abs().flatten(2).mean(2)
    return ink * variation.clamp(min=floor).prod(0).pow(0.25)


def _neighbourhood_mean(values: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W): the mean over 3 × 3 pixels; at the border, where a row or column is missing, over what there is.

    Written as additions, it costs a seventh of average pooling for a batch of small images.
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

    Reconstructions are a little blurred and strokes a little shifted; a mean over 3 × 3 pixels forgives just that.
    """
    return _neighbourhood_mean(images - reconstructions).square().flatten(1).mean(1)


def _largest_window(error: torch.Tensor, share: int) -> torch.Tensor:
    """(N,): the largest mean over channels and any square window of side // share pixels, at least 2."""
    side = max(2, min(error.shape[2], error.shape[3]) // share)
    return nn.functional.avg_pool2d(error.mean(1, keepdim=True), side, stride=1).flatten(1).amax(1)


class Mse(nn.Module):
    """The score is the MSE itself: mean squared error over channels and pixels."""

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        return squared_error(images, reconstructions).flatten(1).mean(1)


class Smoothed(nn.Module):
    """Mean square of the difference after a 3 × 3 mean filter."""

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        return _smoothed(images, reconstructions)


class SmoothedRelative(nn.Module):
    """The smoothed error over the larger of the image's and the reconstruction's mean square."""

    def __init__(self) -> None:
        super().__init__()
        self.floor = FLOOR

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        smoothed = _smoothed(images, reconstructions)
        return smoothed / _energy(images, reconstructions, self.floor)


class SmoothedExtent(nn.Module):
    """The smoothed error over the extent of what is drawn: the ink times the root of the outline's length.

    Normal images with more ink and longer outlines are rebuilt with larger errors. The reconstruction has its say in
    the outline, because noise has long ones that its reconstruction lacks, and must not gain by them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.floor = FLOOR

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        smoothed = _smoothed(images, reconstructions)
        return smoothed / _extent(images, reconstructions, self.floor)


class Local(nn.Module):
    """The largest mean of the squared error in any square window of an eighth of the image's shorter side."""

    def __init__(self) -> None:
        super().__init__()
        self.share = WINDOW_SHARE

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        return _largest_window(squared_error(images, reconstructions), self.share)


class LocalRelative(nn.Module):
    """The largest windowed error over the MSE: how much the error gathers in one place."""

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
    """A rule under the name that bundles carry."""

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


class ScoredAutoencoder(nn.Module):
    """What a bundle's model.pt is: the network with its scoring rule.

    Args:
        network: (N, C, H, W) → reconstruction of the same shape.
        rule: images, reconstructions → (N,).
    """

    def __init__(self, network: nn.Module, rule: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.rule = rule

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, C, H, W) float32 in [0, 1] → reconstruction (N, C, H, W), mse (N,), score (N,)."""
        reconstructions = self.network(images)
        mse = squared_error(images, reconstructions).flatten(1).mean(1)
        return reconstructions, mse, self.rule(images, reconstructions)
