"""The images of results: PNG files that other readers decode to the same pixels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from app.inference.images.rendering import png, pngs, to_pixels


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (28, 28), (300, 200), (1, 1, 3), (17, 40, 3)])
def test_png_files_are_decoded_by_pillow_to_the_same_pixels(shape: tuple[int, ...]) -> None:
    batch = np.random.default_rng(3).integers(0, 256, (4, *shape), dtype=np.uint8)
    batch[1] = 255
    files = pngs(batch)
    assert files[2] == png(batch[2])
    for file, pixels in zip(files, batch, strict=True):
        image = Image.open(io.BytesIO(file))
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), pixels)


def test_smooth_images_are_compressed() -> None:
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    assert len(png(smooth)) < 64 * 64 / 4


def test_pixels_are_rounded_and_clipped() -> None:
    values = torch.tensor([-1, 0, 0.4 / 255, 0.6 / 255, 1, 2]).reshape(1, 2, 3)
    assert to_pixels(values).tolist() == [[0, 0, 0], [1, 255, 255]]
    assert to_pixels(values.expand(5, 3, 2, 3)).shape == (5, 2, 3, 3)
