"""Recalibration of a trained model, with a folder of images and with labels given to a running service."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from app.inference.bundles.manifest import Manifest
from app.inference.bundles.store import ModelStore
from app.inference.decisions.conformal import Calibration
from app.inference.images.decoding import open_image
from tests.deep_images import png
from tests.support import SPEC, make_bundle, running_server
from training.__main__ import main
from training.evaluation.scores import score_all
from training.recalibration import from_images
from training.reporting.samples import is_sample
from training.run import Published


@pytest.fixture
def store(trained: Published, tmp_path: Path) -> ModelStore:
    """A store with a copy of the trained model."""
    shutil.copytree(trained.directory.parent, tmp_path / "store" / "digits-5")
    return ModelStore(tmp_path / "store")


def write_files(path: Path, files: list[bytes]) -> Path:
    path.mkdir(parents=True)
    for index, content in enumerate(files):
        (path / f"{index:03}.png").write_bytes(content)
    return path


def run(capsys: pytest.CaptureFixture[str], store: ModelStore, *words: object) -> tuple[int, str, str]:
    status = main(["recalibrate", "digits-5", "--store", str(store.root), *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def scores_of(store: ModelStore, files: list[bytes]) -> list[float]:
    bundle = store.load("digits-5", store.current("digits-5"))
    images = [open_image(file, max_pixels=10**6).decode(bundle.spec).tensor.unsqueeze(0) for file in files]
    return [score_all(bundle.model, image).score[0] for image in images]


def test_recalibration_decodes_with_the_levels_and_the_background_of_the_model(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"black": 0.0, "white": 4095.0, "background": "white"})
    store = ModelStore(tmp_path / "store")
    store.publish(*make_bundle("deep", spec=spec))
    random = np.random.default_rng(0)
    values = random.integers(0, 4096, (120, 8, 8, 4), dtype=np.uint16)
    values[..., :3] = values[..., :1]
    values[..., 3] = 65535
    values[:, 2:5, :, 3] = 0
    folder = write_files(tmp_path / "new", [png(image) for image in values])
    bundle = store.load("deep", store.current("deep"))
    grey = values[..., 0].astype(np.float32) / np.float32(4095)
    grey[:, 2:5] = 1
    new = from_images(bundle, folder, "none")
    assert new.normal == pytest.approx(score_all(bundle.model, torch.from_numpy(grey[:, None])).score, rel=1e-4)
    assert new.remarks == ["120 normal images: transparency was flattened onto white"]


def new_threshold(scores: list[float], rate: float) -> float:
    return Calibration(scores).threshold_for(rate)


def test_recalibration_with_a_folder(
    trained: Published, store: ModelStore, tmp_path: Path, digit_files: dict[int, list[bytes]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = trained.manifest
    threes = digit_files[3][:60]  # as different from fives as a new product may be
    scores = scores_of(store, threes)
    folder = write_files(tmp_path / "new-normals", threes)
    (folder / "broken.png").write_bytes(b"nothing")
    status, out, err = run(capsys, store, "--images", folder)
    assert (status, err) == (0, "")

    after = store.manifest("digits-5")
    assert after.version != before.version
    old, new = (store.root / "digits-5" / each.version / "model.pt" for each in (before, after))
    assert new.read_bytes() == old.read_bytes()
    assert after.calibration.scores == pytest.approx(sorted(scores), rel=1e-5)
    assert after.threshold == new_threshold(list(after.calibration.scores), 0.05)
    assert "60 calibration images" in after.promise
    assert store.load("digits-5", after.version).manifest == after  # passes verification

    lineage = after.recalibration
    assert lineage is not None
    assert (lineage.version, lineage.threshold, lineage.size) == (
        before.version, before.threshold, before.calibration.size
    )  # fmt: skip
    assert lineage.flagged == pytest.approx(sum(score > before.threshold for score in scores) / 60, abs=1 / 60)
    assert (lineage.data.source, lineage.data.unreadable, lineage.data.groups) == ("new-normals", 1, 60)
    assert (after.training, after.data) == (before.training, before.data)

    text = " ".join(out.split())
    assert re.search(rf"threshold {before.threshold:.6g} {after.threshold:.6g} ", text)
    assert re.search(r"calibration images \d+ 60 ", text)
    assert f"{lineage.flagged:.2%} of the new images are anomalies, more than the guaranteed 5.00%" in text
    assert "skipped" in text
    assert f"undo python -m training activate digits-5 {before.version}" in text


def test_rates_at_the_old_threshold_are_not_kept(
    trained: Published, store: ModelStore, tmp_path: Path, digit_files: dict[int, list[bytes]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = trained.manifest
    folder = write_files(tmp_path / "new", digit_files[3][:30])
    assert run(capsys, store, "--images", folder)[0] == 0
    after = store.manifest("digits-5")
    assert before.evaluation is not None
    assert after.evaluation is not None
    assert (after.evaluation.auroc, after.evaluation.normal) == (before.evaluation.auroc, before.evaluation.normal)
    assert (after.evaluation.detection_rate, after.evaluation.false_alarm_rate, after.evaluation.kinds) == (
        None, None, {}
    )  # fmt: skip
    assert set(filter(is_sample, before.files)) == set(filter(is_sample, after.files)) != set()
    charts = {Path(name).stem for name in after.files if name.endswith(".png") and not is_sample(name)}
    assert charts == {"samples", "loss", "gallery", "precision_recall", "recalibration", "suspicious"}
    page = store.file(after, "report/index.html").decode()
    assert f"{after.threshold:.5g}" in page
    assert f"Recalibrated: the weights are those of version {before.version}" in page
    assert main(["show", "digits-5", "--store", str(store.root)]) == 0
    assert "recalibrated" in capsys.readouterr().out


def test_recalibration_with_another_rate_and_guarantee(
    store: ModelStore, tmp_path: Path, digit_files: dict[int, list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_files(tmp_path / "new", digit_files[5][:80])
    options = ("--false-alarm-rate", 0.1, "--guarantee", "strict")
    assert run(capsys, store, "--images", folder, *options)[0] == 0
    after = store.manifest("digits-5")
    assert (after.false_alarm_rate, after.guarantee) == (0.1, "strict")
    assert after.threshold == Calibration(after.calibration.scores).threshold_for(0.1, "strict")


def test_recalibration_counts_groups_of_images(
    store: ModelStore, tmp_path: Path, digit_files: dict[int, list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_files(tmp_path / "new", digit_files[5][:80])
    tens = ("--groups", "^(..)")  # the first two of three digits: eight groups of ten images
    status, _, err = run(capsys, store, "--images", folder, *tens)
    assert status == 1
    assert "too few groups, 8 of 80 images (--groups none treats every image as its own object): " in err
    assert "needs at least 19 groups of calibration images, there are 8; the finest rate these support is 0.1112" in err
    assert err.count("\n") == 1

    status, out, _ = run(capsys, store, "--images", folder, *tens, "--false-alarm-rate", 0.25)
    assert status == 0
    after, record = (found := store.manifest("digits-5")), found.calibration
    assert (record.size, record.effective_size) == (80, 8)
    assert "8 groups with 80 calibration images" in after.promise
    assert re.search(r"calibration groups +\d+ +8\b", out)
    assert after.recalibration is not None
    assert after.recalibration.data.groups == 8

    assert run(capsys, store, "--images", folder, *tens, "--false-alarm-rate", 0.4, "--guarantee", "strict")[0] == 0
    strict = store.manifest("digits-5").calibration
    assert (strict.size, strict.groups) == (8, None)
    assert set(strict.scores) <= set(record.scores)


def test_only_normal_images_of_a_training_folder_are_used(
    store: ModelStore, tmp_path: Path, digit_files: dict[int, list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path / "parts" / "normal", digit_files[5][:25])
    write_files(tmp_path / "parts" / "test" / "anomaly" / "3", digit_files[3][:9])
    assert run(capsys, store, "--images", tmp_path / "parts")[0] == 0
    assert store.manifest("digits-5").calibration.size == 25


@pytest.mark.parametrize(
    ("count", "words", "message"),
    [
        (18, (), "too few normal images: a marginal false alarm rate of 0.05 needs at least 19 calibration images, "
                 "there are 18"),
        (18, ("--guarantee", "strict"), "needs at least 59 calibration images"),
        (0, (), "contains no images"),
    ],
)  # fmt: skip
def test_too_few_images_is_an_error(
    count: int, words: tuple[str, ...], message: str, store: ModelStore, tmp_path: Path,
    digit_files: dict[int, list[bytes]], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = write_files(tmp_path / "few", digit_files[5][:count])
    status, _, err = run(capsys, store, "--images", folder, *words)
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
    assert len(store.versions("digits-5")) == 1


def test_unusable_sources(store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = write_files(tmp_path / "broken", [b"nothing"])
    (tmp_path / "labels").write_text("nothing\n")
    for words, message in (
        ((), "either --images FOLDER or --feedback FILE"),
        (("--images", tmp_path / "none"), "folder not found: "),
        (("--images", broken), "none of the 1 images"),
        (("--feedback", tmp_path / "none"), "cannot be read: No such file"),
        (("--feedback", tmp_path / "labels"), "has no label 'normal' for digits-5"),
    ):
        status, _, err = run(capsys, store, *words)
        assert status == 1
        assert message in err
    assert len(store.versions("digits-5")) == 1


def test_signing_requires_a_signed_version(
    store: ModelStore, tmp_path: Path, digit_files: dict[int, list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    key, folder = tmp_path / "key", write_files(tmp_path / "new", digit_files[5][:25])
    assert main(["keygen", str(key)]) == 0
    status, _, err = run(capsys, store, "--images", folder, "--sign-key", key)
    assert status == 1
    assert "manifest.sig is missing" in err
    assert main(["sign", "digits-5", "--store", str(store.root), "--key", str(key)]) == 0
    assert run(capsys, store, "--images", folder, "--sign-key", key)[0] == 0
    assert main(["verify", "--store", str(store.root), "--trusted-keys", f"{key}.pub"]) == 0
    assert len(store.versions("digits-5")) == 2


def test_recalibration_with_labels_from_a_running_service(
    store: ModelStore, tmp_path: Path, digit_files: dict[int, list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels for 30 fives and 5 threes, one of which is changed afterwards; then recalibrates a second time."""
    file = tmp_path / "feedback" / "labels.jsonl"
    first = store.manifest("digits-5")
    images = [(content, "normal") for content in digit_files[5][:30]]
    images += [(content, "anomaly") for content in digit_files[3][:5]] + [(digit_files[5][0], "anomaly")]
    with running_server(
        store.root, tmp_path / "log", measure_coverage=False, model="digits-5", feedback_path=file
    ) as server:
        answer = server.client.post(
            "/score", params={"include": ""}, files=[("file", content) for content, _ in images]
        ).json()
        for result, (_, verdict) in zip(answer["results"], images, strict=True):
            response = server.client.post("/feedback", json={"id": result["id"], "verdict": verdict})
            assert response.status_code == 201
    status, out, err = run(capsys, store, "--feedback", file)
    assert (status, err) == (0, "")
    after = store.manifest("digits-5")
    assert list(after.calibration.scores) == sorted(result["score"] for result in answer["results"][1:30])
    assert "labelled normal" in after.promise
    assert after.recalibration is not None
    assert (after.recalibration.version, after.recalibration.data.source) == (first.version, "labels in labels.jsonl")
    assert "flagged of 6 new labelled anomalies" in " ".join(out.split())
    assert "random sample" in out

    added = add_label(file, after, score=after.calibration.scores[-1] + 1)
    assert run(capsys, store, "--feedback", file)[0] == 0  # the labels of the first version have the same scores
    last = store.manifest("digits-5")
    assert list(last.calibration.scores) == [*after.calibration.scores, added]


def add_label(file: Path, manifest: Manifest, *, score: float) -> float:
    line = json.loads(file.read_text().splitlines()[0])
    line |= {"version": manifest.version, "picture": "f" * 32, "score": score, "verdict": "normal"}
    of_other_models = [{**line, "model": "another"}, {**line, "version": "unknown", "picture": "e" * 32}]
    with file.open("a") as lines:
        lines.writelines(json.dumps(each) + "\n" for each in (line, *of_other_models))
    return score
