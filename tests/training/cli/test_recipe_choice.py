"""``--recipe auto``: the default for folders, what it prints and records, and options that it refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.bundles.manifest import Manifest
from app.inference.bundles.store import ModelStore
from training.__main__ import main


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Thirty small grey images, and ten of another shape to evaluate on."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:12, :12]
    for place, count in (("normal", 30), ("test/anomaly/ring", 10)):
        (tmp_path / "parts" / place).mkdir(parents=True)
        for number in range(count):
            row, column = random.normal(6, 0.5, 2)
            distance = np.hypot(y - row, x - column)
            inside = distance < 4 if place == "normal" else abs(distance - 4) < 1
            pixels = 30 + 180 * inside + random.normal(0, 8, (12, 12))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "parts" / place / f"{number}.png")
    return tmp_path / "parts"


def train(tmp_path: Path, *words: str) -> int:
    store = ["--store", str(tmp_path / "store"), "--data-dir", str(tmp_path / "data"), "--name", "m", "--threads", "1"]
    return main([*words, *store, "--false-alarm-rate", "0.1"])


def published(tmp_path: Path) -> Manifest:
    return ModelStore(tmp_path / "store").manifest("m")


def test_a_folder_without_a_recipe_chooses_prints_and_records(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "--data", str(parts)) == 0
    manifest = published(tmp_path)
    trials = manifest.training.trials
    assert trials is not None
    assert {trial.recipe for trial in trials} == {"default", "linear"}
    assert trials[0].auroc >= trials[1].auroc
    assert all((trial.height, trial.width) == (12, 12) for trial in trials)
    assert trials[0].recipe == manifest.training.recipe["name"]
    assert trials[0].rule == manifest.scoring.rule
    assert manifest.input.shape == (1, 12, 12)

    lines = capsys.readouterr().out.splitlines()
    heading = next(at for at, line in enumerate(lines) if "AUROC of synthetic defects" in line)
    for trial, line in zip(trials, lines[heading + 1 :], strict=False):
        assert line.split() == [trial.recipe, "12", "×", "12", trial.rule, f"{trial.auroc:.3f}"]
    assert any(line.startswith(f"recipe {trials[0].recipe}, input 12 × 12, ") for line in lines[heading:])

    assert main(["show", "m", "--store", str(tmp_path / "store")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"AUROC of synthetic defects {trials[0].recipe} at 12 × 12: {trials[0].auroc:.3f}, " in shown


def test_a_recipe_of_the_user_is_not_tried(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "--data", str(parts), "--recipe", "linear", "--size", "12") == 0
    assert published(tmp_path).training.trials is None
    assert b'"trials"' not in (tmp_path / "store" / "m" / published(tmp_path).version / "manifest.json").read_bytes()
    assert "synthetic defects" not in capsys.readouterr().out


def test_digits_keep_the_default_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "--data", "digits", "--epochs", "2") == 0
    training = published(tmp_path).training
    assert (training.recipe["name"], training.trials) == ("default", None)
    assert "synthetic defects" not in capsys.readouterr().out


def test_auto_on_digits_tries_default_and_linear_and_divides_as_the_chosen_recipe(tmp_path: Path) -> None:
    assert train(tmp_path, "--data", "digits", "--recipe", "auto", "--calibration", "split") == 0
    training = published(tmp_path).training
    assert training.trials is not None
    assert {(trial.recipe, trial.height, trial.width) for trial in training.trials} == {
        ("default", 8, 8), ("linear", 8, 8)
    }  # fmt: skip
    assert (len(training.split.calibration), len(training.split.validation)) == (30, 7)


@pytest.mark.parametrize(
    "option", [("--epochs", "3"), ("--batch-size", "8"), ("--learning-rate", "0.1"), ("--score", "mse")]
)
def test_options_of_one_recipe_are_refused_with_auto(
    option: tuple[str, str], parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "--data", str(parts), "--recipe", "auto", *option) == 1
    expected = f"error: {option[0]} needs a recipe: choose one with --recipe, or leave it out\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "store").exists()


def test_options_of_pixel_recipes_select_the_default_recipe(parts: Path, tmp_path: Path) -> None:
    assert train(tmp_path, "--data", str(parts), "--epochs", "2") == 0
    training = ModelStore(tmp_path / "store").manifest("m").training
    assert (training.recipe["name"], training.recipe["epochs"], training.trials) == ("default", 2, None)


def test_too_few_images_are_reported_before_anything_is_tried(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "store"), "--data-dir", str(tmp_path / "data")]
    assert main(["--data", str(parts), *store]) == 1
    out, err = capsys.readouterr()
    assert "needs at least 99 normal images, but there are 30." in err
    assert "synthetic defects" not in out


def test_images_of_one_group_can_be_tried(parts: Path, tmp_path: Path) -> None:
    """Three objects, of which one is fitted on: the folds of the trial then divide its images."""
    for number, file in enumerate(sorted((parts / "normal").iterdir())):
        folder = parts / "normal" / f"object {number % 3}"
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    store = ["--store", str(tmp_path / "store"), "--data-dir", str(tmp_path / "data"), "--name", "m", "--threads", "1"]
    words = ["--data", str(parts), *store, "--false-alarm-rate", "0.4", "--calibration", "split"]
    assert main([*words, "--force"]) == 0  # ten images to fit
    assert published(tmp_path).training.trials is not None
