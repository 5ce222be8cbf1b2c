"""Near-duplicates: images that look alike in parts that should be independent.

A photograph taken twice, once in the fit and once in the calibration part, makes the calibration scores too good
and the threshold too low. Perceptual hashes (DCT, 64 bits) that differ in few bits find such pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import imagehash
import numpy as np
import numpy.typing as npt
import torch

from app.inference.images.rendering import to_image

_MAX_DISTANCE: Final = 3  # bits of 64
_ROWS: Final = 1024


@dataclass(frozen=True)
class Pair:
    """Two images that look alike.

    Attributes:
        first: index into the first part.
        second: index into the second part.
    """

    first: int
    second: int


def hashes(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """(N, C, H, W) in [0, 1] → (N, 64) bits."""
    bits = [imagehash.phash(to_image(image)).hash.ravel() for image in images]
    return np.array(bits, dtype=np.uint8).reshape(-1, 64)


def near_duplicates(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> Sequence[Pair]:
    """All pairs across two parts whose hashes differ in at most three bits."""
    pairs = []
    signs = 1 - 2 * second.T.astype(np.float32)
    for start in range(0, len(first), _ROWS):
        agreement = (1 - 2 * first[start : start + _ROWS].astype(np.float32)) @ signs
        for row, column in np.argwhere(agreement >= 64 - 2 * _MAX_DISTANCE):
            pairs.append(Pair(start + int(row), int(column)))
    return pairs
