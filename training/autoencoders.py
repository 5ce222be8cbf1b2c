"""The networks that learn to compress and rebuild normal pictures."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


class DenseAutoencoder(nn.Module):
    """Fully connected, mirrored: the last hidden width is the code.

    Takes (N, C, H, W) float32 in [0, 1] and returns a reconstruction of that very shape, in (0, 1).

    Args:
        shape: (C, H, W) of one picture.
        hidden: widths from the input's side to the code, e.g. (512, 64).
        linear_code: no ReLU after the code layer.
    """

    def __init__(self, shape: tuple[int, int, int], hidden: Sequence[int], *, linear_code: bool) -> None:
        super().__init__()
        widths = (math.prod(shape), *hidden)
        encoder = _layers(widths)
        self.encoder = nn.Sequential(nn.Flatten(), *(encoder[:-1] if linear_code else encoder))
        self.decoder = nn.Sequential(*_layers(widths[::-1])[:-1], nn.Sigmoid())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → reconstruction (N, C, H, W)."""
        rebuilt: torch.Tensor = self.decoder(self.encoder(images))
        return rebuilt.reshape(images.shape)


def _layers(widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.ReLU()]
    return layers


def parameter_count(network: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())
