"""The way back from the cells of a map to the pixels of an uploaded image, compared with what decoding does."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.inference.decisions.regions import find_regions
from app.inference.images.decoding import decode
from app.inference.images.model_input import Fit, InputSpec
from app.inference.images.placement import Placement, smallest_box, within
from tests.support import encode

FITS: list[Fit] = ["stretch", "pad", "crop"]
LYING = 6  # the EXIF orientation of a photograph that must be turned by 90° clockwise


def with_block(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A black image with a white block: left, top, width, height."""
    image = Image.new("L", size)
    image.paste(255, (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    return image


def boxes(file: bytes, spec: InputSpec, cells: tuple[int, int]) -> tuple[list[tuple[int, ...]], Placement]:
    """The boxes of white in an image file, found in a map of the mean of each cell of the model's input."""
    decoded = decode(file, spec, max_pixels=10**8)
    placement = Placement.of(decoded.size or (spec.width, spec.height), spec)
    rows, columns = cells
    values = decoded.tensor[0].reshape(rows, spec.height // rows, columns, spec.width // columns).mean((1, 3))
    folded = placement.fold(values.numpy().astype(np.float64))
    xs, ys = placement.x.edges(columns), placement.y.edges(rows)
    found = find_regions(folded, 0.25)
    return [smallest_box((xs[each.left], xs[each.right]), (ys[each.top], ys[each.bottom])) for each in found], placement


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(640, 480), (300, 700), (64, 64), (50, 31), (1000, 300)])
@pytest.mark.parametrize("cells", [(64, 64), (16, 16)])
def test_box_is_right_to_one_cell(fit: Fit, size: tuple[int, int], cells: tuple[int, int]) -> None:
    spec = InputSpec(mode="L", height=64, width=64, fit=fit, reduction="area")
    width, height = size
    middle = min(size) // 6  # around the centre, so that a crop shows it
    block = (width // 2 - middle, height // 2 - middle // 2, 2 * middle, middle)
    (box,), placement = boxes(encode(with_block(size, block)), spec, cells)
    for begin, length, expected, expected_length, axis, count in zip(
        box[:2], box[2:], block[:2], block[2:], (placement.x, placement.y), cells[::-1], strict=True
    ):
        cell = axis.image * axis.input / axis.extent / count  # in pixels of the image
        assert abs(begin - expected) <= cell + 1
        assert abs(begin + length - expected - expected_length) <= cell + 1


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_box_of_a_turned_photograph_is_where_a_viewer_shows_it(image_format: str) -> None:
    upright = with_block((300, 400), (40, 300, 60, 50))
    exif = Image.Exif()
    exif[0x112] = LYING
    options: dict[str, Any] = {"exif": exif} | ({"lossless": True} if image_format == "WEBP" else {})
    file = encode(upright.convert("RGB").transpose(Image.Transpose.ROTATE_90), image_format, **options)
    assert Image.open(io.BytesIO(file)).size == ((300, 400) if image_format == "TIFF" else (400, 300))
    for fit in FITS:
        spec = InputSpec(mode="L", height=100, width=100, fit=fit, reduction="area")
        (box,), placement = boxes(file, spec, (100, 100))
        assert placement.size == (300, 400)
        assert np.abs(np.subtract(box, (40, 300, 60, 50))).max() <= 5


def test_defect_at_the_border_is_one_region_although_the_padding_reflects_it() -> None:
    spec = InputSpec(mode="L", height=64, width=64, fit="pad", reduction="area")
    (box,), _ = boxes(encode(with_block((640, 320), (100, 0, 60, 40))), spec, (64, 64))
    assert box == (100, 0, 60, 40)


@pytest.mark.parametrize("size", [(640, 200), (37, 500), (2000, 30)])
def test_folding_keeps_every_maximum_within_the_image(size: tuple[int, int]) -> None:
    spec = InputSpec(mode="L", height=48, width=64, fit="pad")
    placement = Placement.of(size, spec)
    values = np.random.default_rng(0).random((12, 16))
    folded = placement.fold(values)
    assert folded.max() == values.max()
    rows, columns = np.nonzero(np.isfinite(folded))
    assert (np.diff(placement.x.edges(16))[columns] > 0).all()
    assert (np.diff(placement.y.edges(12))[rows] > 0).all()
    for row, column in np.ndindex(values.shape):  # a peak anywhere in the padding is somewhere in the image
        peak = np.zeros_like(values)
        peak[row, column] = 1
        assert placement.fold(peak).max() == 1


@pytest.mark.parametrize("fit", FITS)
def test_drawn_map_lies_where_the_boxes_are(fit: Fit) -> None:
    spec = InputSpec(mode="L", height=64, width=64, fit=fit)
    placement = Placement.of((600, 400), spec)
    cells = np.zeros((16, 16), np.bool_)
    cells[7:9, 6:11] = True
    xs, ys = placement.x.edges(16), placement.y.edges(16)
    drawn = placement.draw(cells, (600, 400))
    rows, columns = np.nonzero(drawn)
    assert drawn.shape == (400, 600)
    assert (columns.min(), columns.max() + 1) == pytest.approx((xs[6], xs[11]), abs=1)
    assert (rows.min(), rows.max() + 1) == pytest.approx((ys[7], ys[9]), abs=1)
    smooth = placement.interpolate(cells.astype(np.float64), (600, 400))
    assert smooth.shape == drawn.shape
    assert smooth[drawn].min() > 0.2
    assert smooth[:, : int(xs[5])].max() == 0


def test_size_within_a_limit_keeps_the_proportions() -> None:
    assert within((4000, 3000), 1024) == (1024, 768)
    assert within((100, 50), 1024) == (100, 50)
    assert within((5000, 1), 1024) == (1024, 1)
