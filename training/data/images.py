"""Images as training holds them: 8-bit levels where the files have 8 bits, float32 only for those that are read."""

import mmap
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from app.inference.images.model_input import Pixels, unit_values


class Images:
    """N images, read as tensors like a tensor (N, C, H, W): by position, slice or list of positions.

    Whatever is read is float32 in [0, 1] and a copy. As 8-bit levels, the images take a quarter of the memory of
    float32. If the array is mapped from a file, they take none: what was read is dropped, and remains in the system's
    cache of files as long as there is room.

    Args:
        pixels: (M, C, H, W), 8-bit levels from 0 to 255, or float32 in [0, 1].
        positions: N positions in ``pixels``; None: all.
        inside: (H, W), false for pixels that are read as black; None: all are read.
    """

    def __init__(
        self, pixels: Pixels, positions: Sequence[int] | None = None, inside: NDArray[np.bool_] | None = None
    ) -> None:
        self.pixels = pixels
        self._inside = inside
        self._positions = np.arange(len(pixels)) if positions is None else np.array(positions, dtype=np.int64)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        _, channels, height, width = self.pixels.shape
        return len(self), channels, height, width

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, wanted: int | slice | list[int]) -> torch.Tensor:
        chosen: Pixels = np.array(self.pixels[self._positions[wanted]])  # type: ignore[assignment]  # either type stays
        if isinstance(self.pixels.base, mmap.mmap):
            self.pixels.base.madvise(mmap.MADV_DONTNEED)
        values = unit_values(chosen)
        return torch.from_numpy(values if self._inside is None else values * self._inside)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[position] for position in range(len(self)))

    def select(self, positions: Sequence[int]) -> "Images":
        """Some of the images, without a copy."""
        return Images(self.pixels, self._positions[list(positions)].tolist(), self._inside)

    def within(self, inside: NDArray[np.bool_] | None) -> "Images":
        """The same images, black outside of a region (H, W)."""
        return Images(self.pixels, self._positions.tolist(), inside)
