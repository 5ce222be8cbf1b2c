"""The drift benchmark with a small data set."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import drift
from tests.training.data.test_datasets import write_mnist_files


def test_table_has_a_row_for_every_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist_files(tmp_path / "MNIST" / "raw", count=4000)
    monkeypatch.setattr("sys.argv", ["drift", "--data-dir", str(tmp_path), "--trials", "1"])
    assert drift.main() == 0
    rows = capsys.readouterr().out.splitlines()
    assert any("200 test images" in row for row in rows)
    for name in drift.CHANGES:
        assert any(row.startswith(f"| {name} | ") for row in rows), name


def test_changes_keep_the_shape_of_an_image() -> None:
    random = np.random.default_rng(0)
    image = random.uniform(0, 255, (28, 28))
    for name, change in drift.CHANGES.items():
        assert change(image, random).shape == (28, 28), name
