"""Where an image lies in a model's input, and the way back from the cells of a map to the image's own pixels.

The counterpart of the resizing in ``decoding``: ``stretch``, ``pad`` and ``crop`` are undone here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from app.inference.images.model_input import InputSpec

Size = tuple[int, int]
"""Width and height in pixels."""


Box = tuple[int, int, int, int]
"""Left, top, width and height in whole pixels."""


class Axis(NamedTuple):
    """One direction, x or y.

    Attributes:
        image: length of the image, in its own pixels.
        input: length of the model's input, in its pixels.
        begin: where the image begins in the input; negative if it is cropped.
        extent: length of the whole image, in pixels of the input.
    """

    image: int
    input: int
    begin: float
    extent: float

    def to_image(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions in the input → positions in the image, in [0, ``image``]."""
        return np.clip((positions - self.begin) / self.extent, 0, 1) * self.image

    def edges(self, cells: int) -> NDArray[np.float64]:
        """The (cells + 1) edges of a map's cells as positions in the image."""
        return self.to_image(np.linspace(0, self.input, cells + 1))

    def shown(self, cells: int) -> NDArray[np.intp]:
        """For each cell of a map the cell that shows the same part of the image.

        Cells in the padding show a reflection of the image. Cells that show a part of the image itself stay.
        """
        width = self.input / cells
        begins = np.arange(cells) * width
        outside = (begins + width <= self.begin) | (begins >= self.begin + self.extent)
        ahead = (begins + width / 2 - self.begin) % (2 * self.extent)
        mirrored = (self.begin + np.minimum(ahead, 2 * self.extent - ahead)) // width
        kept = np.flatnonzero(~outside)
        return np.where(outside, np.clip(mirrored, kept[0], kept[-1]), np.arange(cells)).astype(np.intp)

    def at(self, pixels: int, cells: int) -> NDArray[np.float64]:
        """The positions, in cells of a map, of the centres of an image's pixels if it is drawn with so many of them.

        Positions outside [0, ``cells``] are outside the input.
        """
        centres = (np.arange(pixels) + 0.5) / pixels
        return (self.begin + centres * self.extent) * (cells / self.input)


@dataclass(frozen=True)
class Placement:
    """Where an image lies in a model's input."""

    x: Axis
    y: Axis

    @classmethod
    def of(cls, size: Size, spec: InputSpec) -> Self:
        """The place of an image of some size, upright, as decoding puts it there."""
        to = (spec.width, spec.height)
        if spec.fit == "stretch" or size[0] * to[1] == size[1] * to[0]:
            return cls(*(Axis(image, side, 0, side) for image, side in zip(size, to, strict=True)))
        if spec.fit == "pad":
            scale = min(side / image for side, image in zip(to, size, strict=True))
            inner = [max(1, min(side, round(image * scale))) for side, image in zip(to, size, strict=True)]
            return cls(
                *(
                    Axis(image, side, (side - within) // 2, within)
                    for image, side, within in zip(size, to, inner, strict=True)
                )
            )
        windows = [min(size[0], size[1] * to[0] / to[1]), min(size[1], size[0] * to[1] / to[0])]
        begins = [(image - window) // 2 for image, window in zip(size, windows, strict=True)]
        return cls(
            *(
                Axis(image, side, -begin * side / window, image * side / window)
                for image, side, begin, window in zip(size, to, begins, windows, strict=True)
            )
        )

    @property
    def size(self) -> Size:
        """Of the image."""
        return self.x.image, self.y.image

    def fold(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """A map (h, w) in which the padding is folded back onto the part of the image that it reflects.

        Each cell has the largest value of those that show its part; the rest is -∞. The maximum stays the same.
        """
        rows, columns = self.y.shown(values.shape[0]), self.x.shown(values.shape[1])
        if (rows == np.arange(len(rows))).all() and (columns == np.arange(len(columns))).all():
            return values
        folded = np.full_like(values, -np.inf)
        np.maximum.at(folded, np.ix_(rows, columns), values)
        return folded

    def draw(self, values: NDArray[np.bool_], size: Size) -> NDArray[np.bool_]:
        """The cells of a map as pixels of the image at some size: (height, width), false outside the input."""
        width, height = size
        rows, columns = self.y.at(height, values.shape[0]), self.x.at(width, values.shape[1])
        padded = np.pad(values, 1)  # outside the input
        drawn: NDArray[np.bool_] = padded[np.ix_(_cell(rows, values.shape[0]), _cell(columns, values.shape[1]))]
        return drawn

    def interpolate(self, values: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
        """A map as pixels of the image at some size, bilinear between the centres of cells: (height, width)."""
        width, height = size
        between_rows = _between(values, self.y.at(height, values.shape[0]))
        return _between(between_rows.T, self.x.at(width, values.shape[1])).T


def _cell(positions: NDArray[np.float64], cells: int) -> NDArray[np.intp]:
    """The numbers of cells from 1; 0 and ``cells`` + 1 are outside."""
    numbers: NDArray[np.intp] = np.clip(np.floor(positions) + 1, 0, cells + 1).astype(np.intp)
    return numbers


def _between(values: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows interpolated at positions of which the centre of row i is i + 0.5."""
    at = np.clip(positions - 0.5, 0, len(values) - 1)
    lower = at.astype(np.intp)
    share = (at - lower)[:, None]
    return values[lower] * (1 - share) + values[np.minimum(lower + 1, len(values) - 1)] * share


def within(size: Size, longest: int) -> Size:
    """A size with the same proportions whose longer side is at most ``longest``; the same if it already is."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def smallest_box(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """The smallest box of whole pixels that holds points; it is at least 1 wide and high."""
    left, top, right, bottom = (round(each, 6) for each in (min(xs), min(ys), max(xs), max(ys)))  # rounding errors
    return floor(left), floor(top), max(1, ceil(right) - floor(left)), max(1, ceil(bottom) - floor(top))
