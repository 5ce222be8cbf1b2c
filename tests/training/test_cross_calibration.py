"""Calibration across folds: all images are fitted on and set the threshold, each scored by a model without its fold."""

import dataclasses
from pathlib import Path

import pytest

from app.inference.bundles.store import ModelStore
from app.inference.decisions.conformal import Calibration
from tests.conftest import digits_run
from tests.support import encode, gradient
from training.__main__ import main
from training.data.datasets import Source
from training.data.splitting import CROSS_BELOW, cross, partition
from training.errors import TrainingError
from training.model.fitting import pick_device
from training.model.method import Progress
from training.model.pixels import PixelMethod
from training.model.recipes import DEFAULT, LINEAR
from training.pipeline import train
from training.preparation import prepare
from training.run import Observer, Run

FEW = dataclasses.replace(LINEAR, code=16)


def crossed(store: Path) -> Run:
    return dataclasses.replace(digits_run(store), recipe=FEW, calibration="cross", false_alarm_rate=0.02)


def single_groups(count: int) -> list[str]:
    return [str(image) for image in range(count)]


class TestPartition:
    def test_auto_is_cross_for_few_groups(self) -> None:
        def folds(groups: list[str]) -> int:
            return len(partition(groups, DEFAULT, plan="auto", false_alarm_rate=0.05, seed=1).folds)

        assert folds(single_groups(CROSS_BELOW - 1)) == 5
        assert folds(single_groups(CROSS_BELOW)) == 0
        assert folds([f"tile {image % 30}" for image in range(CROSS_BELOW + 100)]) == 5  # 30 groups

    def test_auto_is_split_for_the_strict_guarantee(self) -> None:
        parts = partition(single_groups(100), DEFAULT, plan="auto", false_alarm_rate=0.05, guarantee="strict", seed=1)
        assert (parts.folds, len(parts.calibration)) == ((), 59)

    @pytest.mark.parametrize(("plan", "folds"), [("split", 0), ("cross", 5)])
    def test_a_plan_of_the_user_is_followed(self, plan: str, folds: int) -> None:
        for count in (100, 2 * CROSS_BELOW):
            parts = partition(single_groups(count), DEFAULT, plan=plan, false_alarm_rate=0.05, seed=1)  # type: ignore[arg-type]
            assert len(parts.folds) == folds

    def test_all_images_are_in_the_fit_part_and_in_one_fold(self) -> None:
        parts = cross(single_groups(53), false_alarm_rate=0.05, seed=1)
        assert parts.fit == parts.calibrating == tuple(range(53))
        assert (parts.validation, parts.calibration) == ((), ())
        assert sorted(at for fold in parts.folds for at in fold) == list(range(53))

    def test_groups_are_in_one_fold(self) -> None:
        groups = [f"tile {image % 21}" for image in range(100)]
        parts = cross(groups, false_alarm_rate=0.05, seed=1)
        assert sum(len({groups[at] for at in fold}) for fold in parts.folds) == 21

    def test_cross_needs_as_many_images_as_the_rate_alone(self) -> None:
        """Split needs a third more, because at least a quarter is fitted on."""
        for plan, count in (("cross", 19), ("split", 26)):
            partition(single_groups(count), DEFAULT, plan=plan, false_alarm_rate=0.05, seed=1)  # type: ignore[arg-type]
            with pytest.raises(
                TrainingError, match=f"needs at least .*{count} normal images.*but there are {count - 1}"
            ):
                partition(single_groups(count - 1), DEFAULT, plan=plan, false_alarm_rate=0.05, seed=1)  # type: ignore[arg-type]

    def test_too_few_groups_is_an_error_with_the_needed_number(self) -> None:
        with pytest.raises(TrainingError) as caught:
            cross([f"tile {image % 18}" for image in range(90)], false_alarm_rate=0.05, seed=1)
        text = str(caught.value)
        assert "needs at least 19 groups of normal images, but the 90 images are in 18 groups" in text
        assert "The lowest rate for so few is 0.05264. " in text
        assert "\n" not in text

    def test_one_image_supports_no_rate(self) -> None:
        with pytest.raises(TrainingError):
            cross(["one"], false_alarm_rate=0.5, seed=1)
        assert sorted(cross(["one", "two"], false_alarm_rate=0.5, seed=1).folds) == [(0,), (1,)]


def test_threshold_comes_from_held_out_scores_of_all_images(tmp_path: Path) -> None:
    manifest = train(crossed(tmp_path)).manifest
    run, prepared, _ = prepare(crossed(tmp_path), Observer())
    images, folds = prepared.data.normal[:], [list(fold) for fold in prepared.parts.folds]
    method = PixelMethod(run.recipe, run.rule, run.seed, pick_device("cpu"))
    _, held_out = method.cross_fit(images, folds, Progress())
    assert manifest.calibration.scores == pytest.approx(sorted(held_out.tolist()), rel=1e-6)
    assert manifest.calibration.folds == len(folds) == 5
    split = manifest.training.split
    assert (split.fit, split.validation, split.calibration) == (len(images), (), ())
    assert manifest.threshold == Calibration(held_out.tolist()).threshold_for(0.02)
    assert "the scores come from 5 models, each fitted without the images that it scored" in manifest.promise
    ModelStore(tmp_path).load("digits-5", manifest.version)


def test_a_rate_that_a_split_of_as_few_images_cannot_guarantee(tmp_path: Path) -> None:
    run = dataclasses.replace(crossed(tmp_path), false_alarm_rate=0.0075)  # 133 images
    with pytest.raises(TrainingError, match="needs at least 133 calibration images, so 178 normal images"):
        train(dataclasses.replace(run, calibration="split"))
    manifest = train(run).manifest
    assert manifest.calibration.size == 149
    assert manifest.evaluation is not None
    assert manifest.evaluation.false_alarm_rate is not None
    assert manifest.evaluation.false_alarm_rate < 0.1


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    """Twelve objects, three images of each; those of different objects look alike, too."""
    for number in range(36):
        folder = tmp_path / "parts" / "normal" / f"object {number // 3}"
        folder.mkdir(parents=True, exist_ok=True)
        image = gradient(20 + number % 7, 20)
        image.putpixel((number % 20, number // 20), 255)
        (folder / f"{number}.png").write_bytes(encode(image))
    return tmp_path / "parts"


def test_near_duplicates_in_different_folds_are_counted(grouped: Path, tmp_path: Path) -> None:
    run = dataclasses.replace(
        crossed(tmp_path / "store"),
        source=Source(str(grouped), data_dir=tmp_path / "data", size=(16, 16)),
        false_alarm_rate=0.1,
    )
    _, prepared, _ = prepare(run, Observer())
    assert prepared.near_duplicates is not None
    assert set(prepared.near_duplicates) == {"different folds", "normal and test"}
    fold_of = {
        prepared.data.normal_files[at]: number for number, fold in enumerate(prepared.parts.folds) for at in fold
    }
    pairs = prepared.near_duplicates["different folds"]
    assert pairs
    assert all(fold_of[one] != fold_of[other] for one, other in pairs)


class TestCommandLine:
    def words(self, tmp_path: Path, *more: str) -> list[str]:
        store = ["--store", str(tmp_path / "store"), "--data-dir", str(tmp_path / "data")]
        return ["--data", "digits", "--recipe", "linear", *store, *more]

    def test_a_strict_guarantee_is_refused_in_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(self.words(tmp_path, "--guarantee", "strict", "--calibration", "cross")) == 1
        assert capsys.readouterr().err == (
            "error: a strict guarantee needs images held back: choose --calibration split\n"
        )

    def test_few_images_are_calibrated_in_folds_and_all_output_says_so(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(self.words(tmp_path, "--name", "d")) == 0
        out = capsys.readouterr().out
        assert "149 normal images: all for training, and for calibration in 5 folds" in out
        assert "n = 149 in 5 folds" in out
        store = ModelStore(tmp_path / "store")
        manifest = store.manifest("d")
        assert manifest.calibration.folds == 5
        page = store.file(manifest, "report/index.html").decode()
        assert "149 for training, and for calibration in 5 folds" in page
        assert main(["show", "d", "--store", str(tmp_path / "store")]) == 0
        assert "149 for training, and for calibration in folds; 149 groups" in capsys.readouterr().out

    def test_groups_are_counted_with_the_folds(
        self, grouped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = self.words(tmp_path, "--size", "16", "--false-alarm-rate", "0.1", "--name", "parts")
        words[1] = str(grouped)
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "36 normal images in 12 groups: all for training, and for calibration in 5 folds" in out
        assert "n = 12 groups of 36 images in 5 folds" in out
        record = ModelStore(tmp_path / "store").manifest("parts").calibration
        assert (record.size, record.effective_size, record.folds) == (36, 12, 5)

    def test_recalibration_holds_images_back(self, grouped: Path, tmp_path: Path) -> None:
        words = self.words(tmp_path, "--size", "16", "--false-alarm-rate", "0.1", "--name", "parts")
        words[1] = str(grouped)
        assert main(words) == 0
        store = ["--store", str(tmp_path / "store")]
        assert main(["recalibrate", "parts", "--images", str(grouped / "normal"), *store, "--groups", "none"]) == 0
        manifest = ModelStore(tmp_path / "store").manifest("parts")
        assert manifest.calibration.folds is None
        assert "fitted without" not in manifest.promise
