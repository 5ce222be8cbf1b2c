"""Scoring rules: from a picture and its reconstruction to the error that decides."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import nn


def squared_error(images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
    """Per-value squared error; refuses to broadcast.

    ``nn.MSELoss`` only warns when (B, 1, 28, 28) meets (B, 28, 28), expands the pair to (B, B, 28, 28) and so
    trains towards the mean picture.

    Raises:
        ValueError: the shapes differ (``torch.jit.Error`` once scripted).
    """
    if images.shape != reconstructions.shape:
        raise ValueError(f"reconstruction of shape {reconstructions.shape} for images of shape {images.shape}")
    return (images - reconstructions).square()


class Mse(nn.Module):
    """The score is the MSE itself: mean squared error over channels and pixels."""

    def forward(self, images: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        """Two (N, C, H, W) → (N,)."""
        return squared_error(images, reconstructions).flatten(1).mean(1)


@dataclass(frozen=True)
class Rule:
    """A rule under the name that bundles carry."""

    name: str
    formula: str
    module: type[nn.Module]


RULES: Final = {rule.name: rule for rule in (Rule("mse", "mean((x - x̂)²)", Mse),)}


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
