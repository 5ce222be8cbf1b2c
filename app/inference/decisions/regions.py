"""Regions: the connected areas of a map that lie above a threshold.

A region consists of whole cells of the map's grid, not of a contour between their centres. A model decides cell by
cell, and a contour through interpolated values would claim a precision that a coarse map does not have; around a single
cell just above the threshold it would shrink to nothing. Cells that touch at an edge or a corner belong together
(8-connectivity).

An image whose score is the maximum of its map is an anomaly exactly if it has a region.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST: Final = 32
"""Regions of one image; weaker ones are left out."""

# Steps around a region. Noise has outlines without end; they are walked around on a coarser grid.
_LONGEST_OUTLINE: Final = 512

Cells = NDArray[np.bool_]
"""(h, w), true for cells above the threshold."""


class Region(NamedTuple):
    """A connected area of cells.

    Attributes:
        left: column of its first cells.
        top: row of its first cells.
        cells: (h, w) cells of its bounding box that belong to it.
        peak: its largest value, above the threshold.
    """

    left: int
    top: int
    cells: Cells
    peak: float

    @property
    def right(self) -> int:
        """The column after its last cells."""
        return self.left + int(self.cells.shape[1])

    @property
    def bottom(self) -> int:
        """The row after its last cells."""
        return self.top + int(self.cells.shape[0])

    def outline(self) -> list[tuple[int, int]]:
        """The corners (x, y) of its outer boundary in cells from the map's corner, clockwise; holes are filled.

        A boundary of more than 512 steps follows the region on a grid of twice, four times, … the size, from outside.
        """
        cells, size = self.cells, 1
        while _boundary_length(cells) > _LONGEST_OUTLINE:
            cells, size = _halved(cells), size * 2
        height, width = self.cells.shape
        return [
            (self.left + min(x * size, width), self.top + min(y * size, height)) for x, y in _corners(_bordered(cells))
        ]


def in_score_units(error_map: NDArray[np.float32], score: float, *, is_maximum: bool) -> NDArray[np.float64]:
    """A map whose maximum is the score, so that a place lies above a threshold exactly if the score does.

    Args:
        error_map: (h, w) finite errors of one image.
        score: of the image.
        is_maximum: whether the score is the map's maximum. Else a scoring rule computes it, and the map is scaled.

    Returns:
        float64, because a threshold may lie between two float32 values.
    """
    values = error_map.astype(np.float64)
    if is_maximum:
        return values
    largest = values.max()
    # Divided first: the largest value is then exactly the score.
    return values / largest * score if largest > 0 else np.full_like(values, score)


def above(values: NDArray[np.float64], threshold: float) -> Cells:
    """Which cells of a map lie above a threshold: exactly ``value > threshold``."""
    return values > threshold


def find_regions(values: NDArray[np.float64], threshold: float, *, most: int | None = MOST) -> list[Region]:
    """The regions of a map (h, w), the highest peak first.

    Args:
        values: in some unit, such as those of :func:`in_score_units`.
        threshold: in the same unit.
        most: number of regions, of which the weaker ones are left out; None: all.
    """
    cells = above(values, threshold)
    if not cells.any():
        return []
    rows, begins, ends = _runs(cells)
    labels = _joined(rows, begins, ends)
    peaks = np.full(len(rows), -np.inf)  # of a region at the number of its first run
    begun = np.cumsum(ends - begins) - (ends - begins)
    np.maximum.at(peaks, labels, np.maximum.reduceat(values[cells], begun))
    names = np.unique(labels)
    strongest = names[np.argsort(-peaks[names], kind="stable")][:most]
    members = [(name, np.flatnonzero(labels == name)) for name in strongest]
    return [_region(rows[runs], begins[runs], ends[runs], float(peaks[name])) for name, runs in members]


_Numbers = NDArray[np.intp]


def _runs(cells: Cells) -> tuple[_Numbers, _Numbers, _Numbers]:
    """The row, the begin and the end of each run of cells, row by row."""
    changes = np.diff(_bordered(cells)[1:-1].view(np.int8), axis=1)
    rows, begins = np.nonzero(changes == 1)
    return rows, begins, np.nonzero(changes == -1)[1]


def _joined(rows: _Numbers, begins: _Numbers, ends: _Numbers) -> _Numbers:
    """For each run the number of the first run of its region: a run and those that touch it have the same."""
    stride = int(ends.max()) + 2  # a row and the gap to the next, so that positions of all rows are in order
    above_row = (rows - 1) * stride
    first = np.searchsorted(rows * stride + ends, above_row + begins, side="left")
    after = np.searchsorted(rows * stride + begins, above_row + ends, side="right")
    touching = np.maximum(after - first, 0)
    lower = np.repeat(np.arange(len(rows)), touching)
    upper = np.arange(len(lower)) + np.repeat(first - (np.cumsum(touching) - touching), touching)
    labels = np.arange(len(rows))
    while (labels[upper] != labels[lower]).any():
        smaller = np.minimum(labels[upper], labels[lower])
        np.minimum.at(labels, labels[upper], smaller)
        np.minimum.at(labels, labels[lower], smaller)
        while (labels != labels[labels]).any():
            labels = labels[labels]
    return labels


def _region(rows: _Numbers, begins: _Numbers, ends: _Numbers, peak: float) -> Region:
    left, top = int(begins.min()), int(rows[0])
    steps = np.zeros((int(rows[-1]) - top + 1, int(ends.max()) - left + 1), np.int8)
    steps[rows - top, begins - left] = 1
    steps[rows - top, ends - left] -= 1
    return Region(left, top, steps.cumsum(axis=1)[:, :-1].astype(np.bool_), peak)


def _bordered(cells: Cells) -> Cells:
    """Cells in a border of one false cell. A tenth of the time of NumPy's function."""
    bordered = np.zeros((cells.shape[0] + 2, cells.shape[1] + 2), np.bool_)
    bordered[1:-1, 1:-1] = cells
    return bordered


def _boundary_length(cells: Cells) -> int:
    padded = _bordered(cells)
    return int(np.count_nonzero(padded[1:] ^ padded[:-1]) + np.count_nonzero(padded[:, 1:] ^ padded[:, :-1]))


def _halved(cells: Cells) -> Cells:
    """Cells of twice the size, which belong to the region if a part of them does."""
    height, width = cells.shape
    even = np.pad(cells, ((0, height % 2), (0, width % 2)))
    return even[::2, ::2] | even[1::2, ::2] | even[::2, 1::2] | even[1::2, 1::2]


def _corners(padded: Cells) -> list[tuple[int, int]]:
    """The corners of the outer boundary of cells that have a border of one false cell; (0, 0) is inside the border.

    Walks along the edges of cells, with the region on the right hand. Where two cells touch at a corner only, it
    crosses over to the other one.
    """
    cells = padded.tolist()
    x, y, across, down = cells[1].index(True), 1, 1, 0

    def is_cell(to_x: int, to_y: int) -> bool:
        """Whether a cell ahead, on the left or on the right hand, belongs to the region."""
        return bool(cells[y + (down + to_y - 1) // 2][x + (across + to_x - 1) // 2])

    corners = [(x - 1, y - 1)]
    while True:
        x, y = x + across, y + down
        if (x - 1, y - 1) == corners[0]:
            return corners
        if is_cell(down, -across):
            across, down = down, -across
        elif is_cell(-down, across):
            continue
        else:
            across, down = -down, across
        corners.append((x - 1, y - 1))
