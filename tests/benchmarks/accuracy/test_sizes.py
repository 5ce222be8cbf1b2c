"""The benchmark of enlarged digits, with small files."""

from pathlib import Path

import pytest

from benchmarks.accuracy import main
from tests.training.data.test_datasets import write_mnist_files


def test_repeated_pixels_are_reduced_to_the_original(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mnist_files(tmp_path / "MNIST" / "raw", count=300)
    assert main(["sizes", "--data-dir", str(tmp_path)]) == 0
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in capsys.readouterr().out.splitlines()]
    repeated = {row[1]: row[4:] for row in rows if row[0] == "repeated pixels"}
    assert list(repeated) == ["1", "1.5", "2", "2.5", "4", "10"]
    assert repeated["2"] == repeated["4"] == repeated["10"] == repeated["1"]
