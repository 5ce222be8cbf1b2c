"""Slightly changed copies of normal images: a part is never laid under the camera at exactly the same angle."""

import math
from typing import Final

import torch
from torch import nn

from training.model.method import ImageSet

_TURN: Final = math.radians(3)  # to either side
_GAIN: Final = 0.1  # brightness, up or down


class Varied:
    """Images of which each is turned by up to 3° and made up to a tenth brighter or darker.

    Args:
        images: (C, H, W) each, in [0, 1].
        seed: of the changes; the change of an image depends on its position, not on the order of reading.
    """

    def __init__(self, images: ImageSet, seed: int) -> None:
        self._images, self._seed = images, seed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, positions: list[int], /) -> torch.Tensor:
        return torch.cat([self._varied(position) for position in positions])

    def _varied(self, position: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self._seed * len(self._images) + position)
        turn, gain = 2 * torch.rand(2, generator=generator) - 1
        image = turned(self._images[[position]], float(turn) * _TURN)
        return (image * (1 + float(gain) * _GAIN)).clamp(0, 1)


def turned(images: torch.Tensor, angle: float) -> torch.Tensor:
    """(N, C, H, W) turned about their centres by an angle in radians; the corners are filled by reflection."""
    count, _, height, width = images.shape
    cos, sin = math.cos(angle), math.sin(angle)
    # Coordinates run from -1 to 1 along each side, so a turn of pixels takes the sides' ratio into account.
    matrix = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
    grid = nn.functional.affine_grid(matrix.expand(count, 2, 3), list(images.shape), align_corners=False)
    result: torch.Tensor = nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return result
