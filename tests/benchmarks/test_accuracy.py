"""The accuracy benchmark with small data sets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.images.model_input import InputSpec
from benchmarks.accuracy import judge, main
from tests.support import encode
from tests.training.data.test_datasets import write_mnist_files
from training.data.datasets import Dataset
from training.data.images import Images
from training.data.splitting import Partition
from training.model.scoring_rules import SCORING_RULES


def test_figures_of_a_known_score() -> None:
    normal = np.arange(100, dtype=np.float32).reshape(100, 1, 1, 1)
    data = Dataset(
        source="numbers",
        normal_label="small",
        spec=InputSpec(mode="L", height=4, width=4),
        normal=Images(normal),
        groups=tuple(map(str, range(100))),
        test=Images(np.array([1, 50, 98, 97, 200, 300, 40], np.float32).reshape(7, 1, 1, 1)),
        test_kinds=("normal", "normal", "normal", "a", "a", "b", "b"),
    )
    figures = judge(lambda images: images.flatten().double().numpy(), data, Partition((), (), tuple(range(100))))
    # 100 calibration scores: the threshold is the largest (99) at 1 %, the fifth-largest (95) at 5 %.
    assert figures.detected == {0.01: 0.5, 0.05: 0.75}
    assert figures.alarmed == {0.01: 0, 0.05: pytest.approx(1 / 3)}
    assert figures.auroc == pytest.approx(9 / 12)
    assert figures.kinds == {"a": pytest.approx(5 / 6), "b": pytest.approx(4 / 6)}


def test_mnist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mnist_files(tmp_path / "MNIST" / "raw", count=1500)
    options = [
        "--data-dir",
        str(tmp_path),
        "--recipe",
        "tutorial",
        "--digits",
        "3,5",
        "--seeds",
        "2",
        "--set",
        "epochs=3",
    ]
    assert main(["mnist", *options]) == 0
    printed = capsys.readouterr().out
    assert "scoring rule mse, mean ± sd over seeds" in printed
    assert "scoring rule smoothed-extent" in printed
    assert "4 models" in printed
    assert all(rule in printed for rule in SCORING_RULES)
    assert "Deep SVDD" in printed


def test_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for name, count, level in (("normal", 80, 60), ("test/normal", 20, 60), ("test/anomaly/bright", 10, 190)):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for i in range(count):
            image = random.integers(level, level + 40, (16, 16), dtype=np.uint8)
            (tmp_path / "parts" / name / f"{i}.png").write_bytes(encode(Image.fromarray(image)))
    options = ["--data-dir", str(tmp_path / "cache"), "--recipes", "tutorial,linear", "--size", "16"]
    assert main(["folder", str(tmp_path / "parts"), *options]) == 0
    printed = capsys.readouterr().out
    for word in (
        "tutorial autoencoder",
        "linear autoencoder",
        "PCA, 64 components",
        "PCA, 256 components",
        "bright",
        "local",
        "1.000",
    ):
        assert word in printed


def test_folder_without_anomalies_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "normal").mkdir()
    for i in range(60):
        (tmp_path / "normal" / f"{i}.png").write_bytes(encode(Image.new("L", (9, 9), i)))
    assert main(["folder", str(tmp_path), "--data-dir", str(tmp_path / "cache")]) == 1
    assert "needs test images in test/normal/" in capsys.readouterr().err


def test_unknown_hyperparameter_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["mnist", "--set", "jiter=0"])
    assert stop.value.code == 2
    assert "unknown hyperparameter 'jiter'" in capsys.readouterr().err
