"""Features of images: one pass of a backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import torch
from torch import nn

from training.model.method import ImageSet
from training.model.scope import skewness_of
from training.workers import in_parallel

THUMBNAIL: Final = 64
"""Side of the small images that the reconstruction is computed from, in pixels."""


@dataclass(frozen=True)
class Copies:
    """Features of changed copies of some of N images, in the order in which a fit takes them.

    Attributes:
        of: K positions of the images that they are copies of.
        fine: (K, F, h, w) float16.
        deep: (K, D, h', w') float16.
    """

    of: list[int]
    fine: torch.Tensor
    deep: torch.Tensor

    def among(self, positions: Sequence[int]) -> "Copies":
        """The copies of the images at some positions, which are then numbered in their order."""
        number = {position: at for at, position in enumerate(positions)}
        kept = [at for at, position in enumerate(self.of) if position in number]
        return Copies([number[self.of[at]] for at in kept], self.fine[kept], self.deep[kept])


@dataclass(frozen=True)
class Features:
    """Of N images. Half precision: those of 300 images of 1,024 × 1,024 take 0.7 GB.

    Attributes:
        fine: (N, F, h, w) float16.
        deep: (N, D, h', w') float16.
        small: (N, C, THUMBNAIL, THUMBNAIL) float32 in [0, 1].
        skewness: (N,) float32, of the images' details.
        copies: take part in fits.
    """

    fine: torch.Tensor
    deep: torch.Tensor
    small: torch.Tensor
    skewness: torch.Tensor
    copies: Copies | None = None

    def __len__(self) -> int:
        return len(self.fine)

    def __getitem__(self, positions: list[int], /) -> "Features":
        copies = self.copies and self.copies.among(positions)
        return Features(
            self.fine[positions], self.deep[positions], self.small[positions], self.skewness[positions], copies
        )

    def with_copies(self, most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Fine (N + K, F, h, w) and deep (N + K, D, h', w') features, with those of at most ``most`` copies."""
        if self.copies is None:
            return self.fine, self.deep
        return torch.cat([self.fine, self.copies.fine[:most]]), torch.cat([self.deep, self.copies.deep[:most]])


def extract(
    extractor: nn.Module,
    images: ImageSet,
    positions: Sequence[int],
    *,
    threads: int,
    at_once: int | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> Features:
    """Features of images.

    Args:
        extractor: (1, 3, H, W) in [0, 1] → fine and deep features.
        images: read one at a time.
        positions: of the images, at least one.
        threads: number of threads that compute.
        at_once: number of images that are worked on at the same time; see :func:`in_parallel`.
        on_step: called with 1 after each image.
    """

    def features_of(position: int) -> tuple[torch.Tensor, ...]:
        image = images[[position]]
        fine, deep = extractor(image.expand(-1, 3, -1, -1))
        return fine.half(), deep.half(), thumbnails(image), skewness_of(image)

    rows = in_parallel(features_of, positions, threads, at_once=at_once)
    first = next(rows)
    # Filled row by row: a list of all rows and tensors made from it would take twice the memory.
    columns = [torch.empty(len(positions), *value.shape[1:], dtype=value.dtype) for value in first]
    for at, row in enumerate(chain([first], rows)):
        for column, value in zip(columns, row, strict=True):
            column[at] = value[0]
        on_step(1)
    fine, deep, small, skewness = columns
    return Features(fine, deep, small, skewness)


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) → (N, C, THUMBNAIL, THUMBNAIL)."""
    return nn.functional.interpolate(images, (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
