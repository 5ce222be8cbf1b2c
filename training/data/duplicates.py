"""Near-duplicates: images that look alike in parts that should be independent.

If one photograph of a scene is in the fit part and another one in the calibration part, the calibration scores and the
threshold become too low. Such pairs have perceptual hashes (DCT, 64 bits) that differ in few bits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import imagehash
import numpy as np
import numpy.typing as npt
import torch

from app.inference.images.rendering import to_image

_MAX_DISTANCE: Final = 3  # of 64 bits
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


def hashes(images: Iterable[torch.Tensor]) -> npt.NDArray[np.uint8]:
    """Perceptual hashes: N images, each (C, H, W) in [0, 1] → (N, 64) bits."""
    bits = [imagehash.phash(to_image(image)).hash.ravel() for image in images]
    return np.array(bits, dtype=np.uint8).reshape(-1, 64)


def near_duplicates(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> Sequence[Pair]:
    """All pairs across two parts whose hashes differ in at most three bits.

    Args:
        first: (N, 64) bits.
        second: (M, 64) bits.
    """
    pairs = []
    signs = 1 - 2 * second.T.astype(np.float32)
    for start in range(0, len(first), _ROWS):
        agreement = (1 - 2 * first[start : start + _ROWS].astype(np.float32)) @ signs
        for row, column in np.argwhere(agreement >= 64 - 2 * _MAX_DISTANCE):
            pairs.append(Pair(start + int(row), int(column)))
    return pairs
