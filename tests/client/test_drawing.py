"""Boxes drawn on an image at its own size."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.client.runs.drawing import NotDrawable, draw_boxes
from tests.support import encode

CYAN = [0, 229, 255]


def drawn(file: bytes, *boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(draw_boxes(file, boxes)), formats=["PNG"]))


def test_lines_are_inside_the_boxes_and_the_rest_is_unchanged() -> None:
    image = Image.new("RGB", (40, 30), (90, 80, 70))
    pixels = drawn(encode(image), (5, 6, 10, 8), (0, 0, 1, 1))
    assert pixels.shape == (30, 40, 3)
    rows, columns = np.nonzero((pixels == CYAN).all(axis=2))
    assert len(rows) == 2 * 10 + 2 * 8 - 4 + 1
    assert (rows.max(), columns.max()) == (13, 14)
    assert (pixels[(pixels != CYAN).any(axis=2)] == (90, 80, 70)).all()


def test_photograph_is_turned_upright_at_its_own_size() -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    pixels = drawn(encode(Image.new("L", (3000, 2000)), "JPEG", exif=exif), (1990, 0, 10, 50))
    assert pixels.shape == (3000, 2000, 3)
    assert pixels[49, 1999].tolist() == CYAN


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
def test_deep_values_are_scaled_and_not_clipped(dtype: type[np.generic]) -> None:
    values = np.linspace(0, 40000, 256).reshape(16, 16).astype(dtype)
    grey = drawn(encode(Image.fromarray(values), "TIFF"))[..., 0]
    assert grey.reshape(-1).tolist() == pytest.approx(range(256), abs=1)


def test_unreadable_image_is_not_drawable() -> None:
    with pytest.raises(NotDrawable):
        draw_boxes(b"not an image", [])
