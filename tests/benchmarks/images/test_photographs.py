"""The computed photograph makes files as large as those of cameras; a folder of images replaces it."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.images.photographs import encoded, photograph, photographs
from tests.support import gradient


@pytest.mark.parametrize(("file_format", "least", "most"), [("JPEG", 1.5, 3), ("PNG", 10, 16), ("WEBP", 0.5, 2)])
def test_computed_photograph_has_the_entropy_of_a_photograph(file_format: str, least: float, most: float) -> None:
    image = photograph(400, 300)
    assert least < 8 * len(encoded(image, file_format)) / (400 * 300) < most
    assert np.ptp(np.asarray(image)) > 150


def test_photographs_of_a_folder_are_brought_to_size(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="has no images"):
        photographs(40, 30, tmp_path)
    for number in range(7):
        gradient(90, 90).save(tmp_path / f"{number}.png")
    assert [image.size for image in photographs(40, 30, tmp_path)] == [(40, 30)] * 5
