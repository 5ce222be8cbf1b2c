"""The network of the recipe ``features`` for other runtimes: whole batches, in operators that their formats have.

The published network takes images one at a time, which is faster on a processor with torch, in a loop that torch's
exporter does not convert; nor does it convert the antialiased reduction to a thumbnail, which is a product of matrices.
"""

from typing import Any

import torch
from torch import nn

from training.features.detector import statistics_of


class WholeBatch(nn.Module):
    """Gives the same numbers as a published network.

    Args:
        network: a :class:`~training.features.detector.FeatureAutoencoder`, as loaded from an archive.
        size: (height, width) of the images.
    """

    def __init__(self, network: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.rows: torch.Tensor
        self.columns: torch.Tensor
        self.register_buffer("rows", _reduction(size[0], network.side))
        self.register_buffer("columns", _reduction(size[1], network.side).T.contiguous())

    def forward(
        self, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As :meth:`FeatureAutoencoder.forward <training.features.detector.FeatureAutoencoder.forward>`."""
        small = torch.matmul(torch.matmul(self.rows, images), self.columns)
        fine, deep = self.network.extractor(images.expand(-1, 3, -1, -1))
        maps, errors = self.network.heads(fine, deep)
        rebuilt = nn.functional.interpolate(self.network.thumbnail(small), self.size, mode="bilinear")
        outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] = self.network.outputs(
            images, rebuilt, maps, errors, statistics_of(fine)
        )
        return outputs


def _reduction(side: int, reduced: int) -> torch.Tensor:
    """(reduced, side): the weights with which pixels along one side make those of an antialiased reduction."""
    identity = torch.eye(side).reshape(1, 1, side, side)
    return nn.functional.interpolate(identity, (reduced, side), mode="bilinear", antialias=True)[0, 0]
