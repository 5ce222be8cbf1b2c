"""The benchmark of places: a map that shows the defects, and one that does not."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from app.inference.bundles.store import ModelStore
from benchmarks.accuracy import main
from benchmarks.accuracy.places import changed
from tests.support import encode, make_bundle


def test_changed_pixels_are_those_of_the_defect() -> None:
    normal = torch.full((2, 3, 20, 20), 0.5)
    defective = normal.clone()
    defective[1, 2, 4:9, 6:8] += 0.1
    defective[1, 2, 6] -= 0.1 * (defective[1, 2, 6] > 0.5)  # a gap in the defect
    defective[1, 0, 15, 15] += 0.001  # not visible
    first, second = changed(normal, defective)
    assert not first.any()
    expected = torch.zeros(20, 20, dtype=torch.bool)
    expected[4:9, 6:8] = True
    assert torch.equal(torch.from_numpy(second), expected)


def test_synthetic_defects_are_found_in_the_map_of_a_published_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ModelStore(tmp_path / "store").publish(*make_bundle("m", cells=(8, 8)))
    (tmp_path / "normal").mkdir()
    for number in range(12):
        (tmp_path / "normal" / f"{number}.png").write_bytes(encode(Image.new("L", (28, 28))))
    command = ["places", "m", str(tmp_path / "normal"), "--store", str(tmp_path / "store"), "--every", "2"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "each of 6 normal images" in printed
    (row,) = (line.split("│") for line in printed.splitlines() if line.startswith("│"))
    assert float(row[1]) > 0.8  # on black images, what is bright is the defect
