"""The images of results: PNG files that other readers decode to the same pixels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from app.inference.images.rendering import error_map, png, pngs, score_map, to_pixels


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


@pytest.mark.parametrize(
    ("ratio", "place"),
    [(0, 0), (0.25, 0.25), (1, 0.5), (1_000, 0.75), (1e6, 1), (1e9, 1)],
    ids=lambda each: f"{each:g}",
)
def test_score_map_is_logarithmic_above_the_threshold(ratio: float, place: float) -> None:
    """A linear scale ended at four times the threshold: clear defects, of many thousand times it, were one area."""
    values = torch.full((1, 2, 2), 0.02 * ratio)
    expected = error_map(torch.full((1, 4, 4), place), torch.zeros(1, 4, 4))  # the root of its square
    np.testing.assert_allclose(score_map(values, 0.02, (4, 4)).astype(int), expected.astype(int), atol=3)
