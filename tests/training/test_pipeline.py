"""Complete training runs with scikit-learn's digits, in this process and through the command line."""

import dataclasses
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from app.inference.bundles.store import ModelStore
from app.inference.decisions.conformal import Calibration
from app.inference.images.model_input import InputSpec
from tests.conftest import digits_run
from tests.support import ROOT, WITHOUT_COVERAGE, encode, gradient
from training.__main__ import main
from training.data.datasets import Source, load
from training.data.splitting import split
from training.evaluation.figures import evaluate
from training.evaluation.scores import score_all
from training.model.recipes import CONV, DEFAULT, LINEAR, TUTORIAL, Recipe
from training.model.scoring_rules import SCORING_RULES
from training.pipeline import train
from training.run import Published


def test_manifest_describes_the_training(trained: Published) -> None:
    manifest = trained.manifest
    assert manifest.training.recipe["name"] == "default"
    assert manifest.training.recipe["hidden"] == (512,)
    assert (manifest.data.source, manifest.data.normal) == ("digits", "5")
    assert len(manifest.training.loss.train) == manifest.training.recipe["epochs"]
    assert {"torch", "torchvision", "python"} <= set(manifest.libraries)


def test_threshold_can_be_recomputed_from_manifest_and_data(trained: Published, store: Path) -> None:
    manifest = trained.manifest
    run = digits_run(store)
    data = load(run.source)
    assert manifest.data.fingerprint == data.fingerprint
    recorded = manifest.training.split
    parts = split(data.groups, run.recipe, false_alarm_rate=run.false_alarm_rate, seed=run.seed)
    assert (recorded.calibration, recorded.validation) == (parts.calibration, parts.validation)
    assert not set(parts.fit) & set(parts.calibration)
    bundle = ModelStore(store).load("digits-5", manifest.version)
    scores = score_all(bundle.model, data.normal[list(recorded.calibration)]).score
    assert sorted(scores) == pytest.approx(manifest.calibration.scores, rel=1e-5)
    assert Calibration(manifest.calibration.scores).threshold_for(0.05) == manifest.threshold


def test_auroc_of_fives_against_other_digits(trained: Published) -> None:
    assert trained.manifest.evaluation is not None
    assert trained.manifest.evaluation.auroc is not None
    assert trained.manifest.evaluation.auroc > 0.93
    assert set(trained.manifest.evaluation.kinds) == {"normal", *"012346789"}


def test_report_has_all_charts(trained: Published) -> None:
    names = {path.stem for path in (trained.directory / "report").iterdir() if not path.name.startswith("sample-")}
    assert names == {
        "samples",
        "loss",
        "reconstruction",
        "histogram",
        "roc",
        "worst",
        "precision_recall",
        "gallery",
        "suspicious",
        "index",
    }
    for path in (trained.directory / "report" / f"{name}.png" for name in names - {"index"}):
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert min(image.size) > 150
            assert len(image.convert("RGB").getcolors(10**6) or []) > 20  # not empty


def test_bundle_contains_no_path_of_this_machine(trained: Published) -> None:
    needles = [str(ROOT).encode(), sys.prefix.encode(), str(Path(torch.__file__).parent).encode(), b"site-packages"]
    for path in trained.directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "model.pt":
                with zipfile.ZipFile(io.BytesIO(content)) as records:
                    content += b"".join(records.read(name) for name in records.namelist())
            for needle in needles:
                assert needle not in content, (path.name, needle)


def test_same_seed_gives_the_same_model_and_threshold(trained: Published, tmp_path: Path) -> None:
    again = train(digits_run(tmp_path))
    assert again.manifest.threshold == trained.manifest.threshold
    assert again.manifest.files["model.pt"] == trained.manifest.files["model.pt"]
    other = train(dataclasses.replace(digits_run(tmp_path), seed=7))
    assert other.manifest.files["model.pt"] != trained.manifest.files["model.pt"]


def test_tutorial_recipe(tmp_path: Path) -> None:
    published = train(dataclasses.replace(digits_run(tmp_path), recipe=dataclasses.replace(TUTORIAL, epochs=2)))
    assert published.manifest.training.recipe["name"] == "tutorial"


def marked(width: int, height: int, number: int) -> Image.Image:
    """A gradient with a bright pixel at a place of its own."""
    image = gradient(width, height)
    image.putpixel((number % width, number // width), 255)
    return image


def test_folder_without_test_images(tmp_path: Path) -> None:
    (tmp_path / "parts" / "normal").mkdir(parents=True)
    for i in range(60):
        (tmp_path / "parts" / "normal" / f"{i}.png").write_bytes(encode(marked(20 + i % 7, 20, i)))
    source = Source(str(tmp_path / "parts"), data_dir=tmp_path / "data", size=(16, 16))
    run = dataclasses.replace(digits_run(tmp_path / "store"), source=source, name="parts")
    published = train(run)
    assert published.manifest.evaluation is None
    assert {path.stem for path in (published.directory / "report").iterdir()} == {
        "samples",
        "loss",
        "histogram",
        "suspicious",
        "index",
        "sample-01-normal",
        "sample-02-normal",
        "sample-03-normal",
    }


def test_fit_is_published_with_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("normal", "test/normal"):
        (tmp_path / "parts" / name).mkdir(parents=True)
        for i in range(40):
            (tmp_path / "parts" / name / f"{i}.png").write_bytes(encode(marked(20 + i % 7, 40, i)))
    store = ["--name", "parts", "--store", str(tmp_path / "store")]
    options = ["--size", "8x12", "--fit", "pad", "--recipe", "linear", "--false-alarm-rate", "0.2"]
    assert main(["--data", str(tmp_path / "parts"), "--data-dir", str(tmp_path / "data"), *store, *options]) == 0
    trained = ModelStore(tmp_path / "store").manifest("parts")
    assert trained.input == InputSpec(mode="L", height=8, width=12, fit="pad", reduction="area", jpeg="scaled")
    assert "grey, 8 × 12, fit pad" in capsys.readouterr().out

    words = ["--images", str(tmp_path / "parts" / "normal"), "--groups", "none"]
    assert main(["recalibrate", *store[1:], *words]) == 0
    recalibrated = ModelStore(tmp_path / "store").manifest("parts")
    assert recalibrated.input == trained.input
    assert recalibrated.recalibration is not None
    assert recalibrated.recalibration.data.fingerprint == trained.data.fingerprint  # the same images, decoded alike


@pytest.mark.parametrize(
    ("recipe", "rule"), [(CONV, "local"), (LINEAR, "local-relative"), (DEFAULT, "smoothed-relative")]
)
def test_folder_of_colour_images_with_every_network(tmp_path: Path, recipe: Recipe, rule: str) -> None:
    for name, count, hue in (("normal/a", 30, 0), ("normal/b", 20, 0), ("normal", 60, 0), ("test/anomaly/dyed", 9, 90)):
        folder = tmp_path / "parts" / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = Image.merge("HSV", [Image.new("L", (30, 20), hue), Image.new("L", (30, 20), 200), gradient(30, 20)])
            image.putpixel((i % 30, 3 + i // 30), (0, 0, 0))
            (folder / f"{i}.png").write_bytes(encode(image.convert("RGB")))
    run = dataclasses.replace(
        digits_run(tmp_path / "store"),
        source=Source(str(tmp_path / "parts"), data_dir=tmp_path / "data", size=(33, 20)),
        name="parts",
        recipe=dataclasses.replace(recipe, epochs=2),
        rule=SCORING_RULES[rule],
        false_alarm_rate=0.1,
        guarantee="strict",
    )
    manifest = train(run).manifest
    assert manifest.input.shape == (3, 33, 20)
    assert manifest.scoring.rule == rule
    assert manifest.guarantee == "strict"
    assert "95% confidence" in manifest.promise
    assert manifest.data.groups == 62
    assert (manifest.calibration.size, manifest.calibration.groups) == (29, None)  # one image per group
    assert manifest.data.near_duplicates is not None
    assert manifest.data.near_duplicates["fit and calibration"] > 0  # all of them look alike
    bundle = ModelStore(tmp_path / "store").load("parts", manifest.version)
    assert bundle.score_batch(torch.rand(2, 3, 33, 20)).reconstruction.shape == (2, 3, 33, 20)


def parts_folder(path: Path, digit_files: dict[int, list[bytes]]) -> Path:
    """A training folder with 120 images of 40 objects, three of each."""
    for index, content in enumerate(digit_files[5][:120]):
        folder = path / "normal" / f"part {index // 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(content)
    return path


def test_threshold_of_grouped_images_is_for_further_groups(
    tmp_path: Path, digit_files: dict[int, list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = parts_folder(tmp_path / "parts", digit_files)
    words = ["--data", str(folder), "--data-dir", str(tmp_path), "--store", str(tmp_path / "store"), "--size", "8"]
    words += ["--recipe", "linear", "--calibration", "split", "--name", "parts"]
    assert main([*words]) == 1
    error = capsys.readouterr().err
    assert "at least 99 groups of calibration images" in error
    assert "the 120 images are in 40 groups. The lowest rate for so few is 0.03226. " in error
    assert error.endswith("--groups none\n")

    assert main([*words, "--false-alarm-rate", "0.1"]) == 0
    manifest, record = (found := ModelStore(tmp_path / "store").manifest("parts")), found.calibration
    assert (record.size, record.effective_size) == (27, 9)  # a tenth of 40 groups cannot guarantee 10 %
    assert record.groups is not None
    assert manifest.threshold == Calibration(record.scores, record.groups).threshold_for(0.1)
    assert "9 groups with 27 calibration images" in manifest.promise
    ModelStore(tmp_path / "store").load("parts", manifest.version)
    out = capsys.readouterr().out
    assert "120 normal images in 40 groups" in out
    assert "27 for calibration in 9 groups" in out
    assert "n = 9 groups of 27 images" in out
    page = ModelStore(tmp_path / "store").file(manifest, "report/index.html").decode()
    assert "27 for calibration in 9 groups" in page

    assert main([*words, "--false-alarm-rate", "0.1", "--groups", "none"]) == 0
    manifest = ModelStore(tmp_path / "store").manifest("parts")
    assert (manifest.calibration.size, manifest.calibration.groups) == (24, None)


def test_report_page_is_self_contained(trained: Published) -> None:
    page = (trained.directory / "report" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 9
    assert "http" not in page
    assert trained.manifest.promise in page
    for kind in ("normal", *"012346789"):
        assert f"<td>{kind}</td>" in page


def test_evaluation_figures() -> None:
    figures = evaluate([0.1, 0.2, 0.6, 0.4, 0.7, 0.8], ["normal"] * 3 + ["a", "a", "b"], 0.5)
    assert figures is not None
    assert (figures.normal, figures.anomalies) == (3, 3)
    assert figures.false_alarm_rate == pytest.approx(1 / 3)
    assert figures.detection_rate == pytest.approx(2 / 3)
    assert figures.auroc == pytest.approx(8 / 9)
    assert figures.kinds["a"].flagged == 0.5
    assert evaluate([], [], 0.5) is None
    perfect = evaluate([*range(10), *range(10, 30)], ["normal"] * 10 + ["a"] * 20, 9)
    assert perfect is not None
    assert perfect.average_precision == 1  # scikit-learn returns 1.0000000000000002
    only_anomalies = evaluate([0.9], ["a"], 0.5)
    assert only_anomalies is not None
    assert (only_anomalies.auroc, only_anomalies.false_alarm_rate) == (None, None)


class TestCommandLine:
    def test_training_publishes_a_model(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "training", "--data", "digits", "--normal", "5", "--name", "digits-5",
             "--epochs", "2", "--calibration", "split",
             "--store", str(tmp_path / "store"), "--threads", "1"],
            cwd=ROOT, env=WITHOUT_COVERAGE, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert "epoch   2/2  train 0." in done.stdout
        for word in (
            "validation 0.",
            "threshold",
            "AUROC",
            "average precision",
            "detected of",
            "false alarms on",
            "report",
        ):
            assert word in done.stdout
        store = ModelStore(tmp_path / "store")
        assert store.manifest("digits-5").false_alarm_rate == 0.01
        store.load("digits-5", store.current("digits-5"))

    def test_help_shows_options_with_defaults(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        for option in (
            "--data",
            "--normal",
            "--name",
            "--epochs",
            "--false-alarm-rate",
            "--seed",
            "--recipe",
            "--device",
        ):
            assert option in text
        assert text.count("(default: ") >= 15

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--data", "digits", "--false-alarm-rate", "0.001"], "needs at least 999 normal images"),
            (["--data", "digits", "--guarantee", "strict"], "needs at least 299 calibration images"),
            (["--data", "no/such/folder"], "'no/such/folder' is neither a folder nor a built-in set"),
            (["--data", "digits", "--normal", "12"], "labels from 0 to 9"),
            (["--data", "digits", "--store", "/dev/null/store", "--epochs", "1"], "the store is unchanged"),
        ],
    )
    def test_errors_are_one_line(self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(arguments) == 1
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1
        assert errors[0].startswith("error: ")
        assert message in errors[0]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--false-alarm-rate", "0"], ["--false-alarm-rate", "1"], ["--false-alarm-rate", "x"], ["--epochs", "0"],
            ["--name", "../x"], ["--normal", "five"], ["--size", "0x"], ["--device", "abacus"], ["--device", "meta"],
            ["--size", "3"], ["--size", "5000x8"], ["--seed", "99999999999999999999"], ["--seed", "-1"],
            ["--learning-rate", "inf"], ["--fit", "squeeze"],
        ],
    )  # fmt: skip
    def test_invalid_options_are_usage_errors(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert f"argument {arguments[0]}" in capsys.readouterr().err
