"""Regions of a map, compared with a search cell by cell."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from app.inference.decisions.regions import MOST, Region, find_regions

Map = NDArray[np.float64]

SMALL_MAPS = arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 3]))


def drawn(text: str) -> Map:
    """Digits are values, dots are 0."""
    return np.array([[float(each.replace(".", "0")) for each in line] for line in text.split()])


def connected(values: Map, threshold: float) -> Iterator[set[tuple[int, int]]]:
    """The sets of cells (row, column) above a threshold that touch, also at corners."""
    left = {(int(row), int(column)) for row, column in np.argwhere(values > threshold)}
    while left:
        found, ahead = set(), {left.pop()}
        while ahead:
            row, column = ahead.pop()
            found.add((row, column))
            around = set(itertools.product((row - 1, row, row + 1), (column - 1, column, column + 1)))
            ahead |= around & left
            left -= around
        yield found


def cells_of(region: Region) -> set[tuple[int, int]]:
    return {(region.top + int(row), region.left + int(column)) for row, column in np.argwhere(region.cells)}


@settings(max_examples=60)
@given(SMALL_MAPS, st.sampled_from([0.0, 1.0, 2.0, 3.0]))
def test_regions_are_the_connected_cells_above_the_threshold(values: Map, threshold: float) -> None:
    regions = find_regions(values, threshold)
    expected = sorted(map(sorted, connected(values, threshold)))
    assert sorted(sorted(cells_of(region)) for region in regions) == expected
    assert [region.peak for region in regions] == sorted((region.peak for region in regions), reverse=True)
    for region in regions:
        assert region.peak == max(values[cell] for cell in cells_of(region))
        assert all(side.any() for side in (region.cells[0], region.cells[-1]))  # the box is tight
        assert all(side.any() for side in (region.cells[:, 0], region.cells[:, -1]))


@settings(max_examples=60)
@given(SMALL_MAPS)
def test_there_is_a_region_exactly_if_the_maximum_is_above_the_threshold(values: Map) -> None:
    highest = float(values.max())
    assert not find_regions(values, highest)
    assert find_regions(values, float(np.nextafter(highest, -1)))
    assert not find_regions(values, float(np.nextafter(highest, 9)))


def filled(outline: list[tuple[int, int]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The cells inside a polygon of horizontal and vertical lines, by the number of lines on their left."""
    crossings = np.zeros((shape[0], shape[1] + 1), int)
    for (x, y), (_, to_y) in itertools.pairwise([*outline, outline[0]]):
        crossings[min(y, to_y) : max(y, to_y), x] += 1
    inside: NDArray[np.bool_] = crossings.cumsum(axis=1)[:, :-1] % 2 == 1
    return inside


def without_holes(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region with the cells that no path outside leads to, by steps across edges."""
    free = np.pad(~cells, 1, constant_values=True)
    reached = np.zeros_like(free)
    reached[0, 0] = True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= free
        if (grown == reached).all():
            return ~reached[1:-1, 1:-1]
        reached = grown


@settings(max_examples=60)
@given(SMALL_MAPS)
def test_outline_goes_once_around_all_cells(values: Map) -> None:
    for region in find_regions(values, 1):
        outline = [(x - region.left, y - region.top) for x, y in region.outline()]
        assert (filled(outline, region.cells.shape) == without_holes(region.cells)).all()
        for (x, y), (to_x, to_y) in itertools.pairwise([*outline, outline[0]]):
            assert (x == to_x) != (y == to_y)  # no corner twice in a row, none on a straight line


def test_outline_is_clockwise_and_has_corners_only() -> None:
    (region,) = find_regions(drawn("..... .222. .2... ....."), 1)
    assert (region.left, region.top, region.right, region.bottom) == (1, 1, 4, 3)
    assert region.outline() == [(1, 1), (4, 1), (4, 2), (2, 2), (2, 3), (1, 3)]


def test_cells_that_touch_at_a_corner_are_one_region() -> None:
    assert len(find_regions(drawn("2.. .2. ..2"), 1)) == 1
    assert len(find_regions(drawn("2.. ... ..2"), 1)) == 2


def test_strongest_32_regions_are_kept() -> None:
    values = np.zeros((20, 20))
    values[::2, ::2] = np.arange(1, 101).reshape(10, 10)
    regions = find_regions(values, 0)
    assert [region.peak for region in regions] == [100 - at for at in range(MOST)]


def test_outline_of_noise_is_bounded_and_holds_the_region() -> None:
    cells = np.random.default_rng(0).random((300, 200)) < 0.45
    values = cells.astype(np.float64)
    region = max(find_regions(values, 0.5), key=lambda each: int(each.cells.sum()))
    outline = region.outline()
    assert len(outline) <= 512
    inside = filled([(x - region.left, y - region.top) for x, y in outline], region.cells.shape)
    assert inside[region.cells].all()


@pytest.mark.parametrize("threshold", [0.1, 1 / 3])
def test_threshold_between_two_float32_values(threshold: float) -> None:
    below, above = np.float32(threshold), np.nextafter(np.float32(threshold), np.float32(1))
    values = np.array([[below, above]], np.float32).astype(np.float64)
    expected = [float(each) > threshold for each in (below, above)]
    (region,) = find_regions(values, threshold)
    assert region.cells.sum() == sum(expected)
