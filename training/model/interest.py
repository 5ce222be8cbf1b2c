"""The region of interest inside a model: what is outside is black for it, and has no error.

It is a part of the published network, so it holds wherever that runs.
"""

import numpy as np
import torch
from torch import nn

from app.inference.decisions.regions import Cells


def as_tensor(inside: Cells, size: tuple[int, int] | None = None) -> torch.Tensor:
    """A region (H, W) as (1, 1, H, W), 1 inside and 0 outside; at another size, what is mostly inside is 1."""
    region = torch.from_numpy(inside.astype(np.float32))[None, None]
    if size is None or tuple(region.shape[2:]) == size:
        return region
    return (nn.functional.interpolate(region, size, mode="bilinear", antialias=True) >= 1 / 2).float()


def cells_inside(inside: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(1, 1, H, W) → (1, 1, h, w): 1 for the cells of a map that show any part of the region."""
    return nn.functional.adaptive_max_pool2d(inside, grid)


class BlackOutside(nn.Module):
    """An autoencoder whose reconstruction is black outside of a region, as its images are.

    Args:
        network: (N, C, H, W) → reconstruction of the same shape.
        inside: (1, 1, H, W), 1 inside.
    """

    def __init__(self, network: nn.Module, inside: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.inside: torch.Tensor
        self.register_buffer("inside", inside)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        rebuilt: torch.Tensor = self.network(images)
        return rebuilt * self.inside


class RegionOfInterest(nn.Module):
    """A scored model that sees a region only. Its reconstruction shows the image itself outside.

    Args:
        model: images → reconstruction, mse, score, error map, scope; the score depends on places inside only.
        inside: (1, 1, H, W), 1 inside.
        grid: (h, w) of the error map.
    """

    def __init__(self, model: nn.Module, inside: torch.Tensor, grid: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self.inside: torch.Tensor
        self.cells: torch.Tensor
        self.register_buffer("inside", inside)
        self.register_buffer("cells", cells_inside(inside, grid))

    def forward(
        self, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, C, H, W) in [0, 1] → reconstruction (N, C, H, W), mse (N,), score (N,), map (N, 1, h, w), scope (N,)."""
        rebuilt, _, score, error_map, scope = self.model(images * self.inside)
        shown = rebuilt * self.inside + images * (1 - self.inside)
        return shown, (images - shown).square().flatten(1).mean(1), score, error_map * self.cells, scope
