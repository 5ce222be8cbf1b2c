"""The benchmark on MNIST with small files."""

from pathlib import Path

import pytest

from benchmarks.accuracy import main
from tests.training.data.test_datasets import write_mnist_files
from training.model.scoring_rules import SCORING_RULES


def test_mnist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mnist_files(tmp_path / "MNIST" / "raw", count=1500)
    options = ["--recipe", "tutorial", "--digits", "3,5", "--seeds", "2", "--set", "epochs=3", "--jobs", "1"]
    assert main(["mnist", "--data-dir", str(tmp_path), *options]) == 0
    printed = capsys.readouterr().out
    assert "scoring rule mse, mean ± sd over seeds" in printed
    assert "scoring rule smoothed-extent" in printed
    assert "4 models" in printed
    assert all(rule in printed for rule in SCORING_RULES)
    assert "Deep SVDD" in printed


def test_unknown_hyperparameter_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["mnist", "--set", "jiter=0"])
    assert stop.value.code == 2
    assert "unknown hyperparameter 'jiter'" in capsys.readouterr().err
