"""Retraining with labelled images: a light that has changed is learned, and the old version stays."""

import hashlib
import io
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.bundles.labels import Label, append
from app.inference.bundles.store import ModelStore
from training.__main__ import main
from training.data.labelled_files import LabelledFile
from training.errors import TrainingError
from training.retraining import LabelledImages, labelled_images

SIDE = 16


def part(random: np.random.Generator, *, light: float = 0.4, defect: bool = False) -> bytes:
    """A soft spot of random place on a plain surface; a defect is a bright square."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    centre = random.uniform(0.3, 0.7, 2)
    values = light + 0.3 * np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / 0.05)
    values += random.normal(0, 0.01, values.shape)
    if defect:
        values[2:6, 10:14] = 1
    content = io.BytesIO()
    Image.fromarray((values.clip(0, 1) * 255).astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


class Labels:
    """A label file and the folder of its images, as a service writes them."""

    def __init__(self, folder: Path, version: str) -> None:
        self.file, self.images = folder / "labels.jsonl", folder / "images"
        self.images.mkdir()
        self._version = version
        self._at = datetime.now(UTC)

    def add(self, image: bytes, verdict: str, *, model: str = "parts", stored: str | None = None) -> str:
        picture = hashlib.blake2b(image, digest_size=16).hexdigest()
        (self.images / f"{picture}.png").write_bytes(image)
        self._at += timedelta(seconds=1)
        label = Label.model_validate(
            {
                "model": model,
                "version": self._version,
                "mse": 0.1,
                "score": 0.1,
                "threshold": 0.05,
                "picture": picture,
                "request_id": "r",
                "index": 0,
                "labelled_at": self._at,
                "verdict": verdict,
                "filename": None,
                "comment": None,
                "image": f"{picture}.png" if stored is None else stored or None,
            }
        )
        append(self.file, label)
        return picture


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normal parts and a few for tests."""
    root, random = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    for folder, count, defect in (("normal", 80, False), ("test/normal", 10, False), ("test/anomaly/spot", 10, True)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            (root / folder / f"{index:03}.png").write_bytes(part(random, defect=defect))
    return root


@pytest.fixture(scope="module")
def trained_once(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model of these parts, which no test changes."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = ["--data", parts, "--name", "parts", "--store", folder / "store", "--data-dir", folder / "data"]
    options = ["--recipe", "linear", "--size", SIDE, "--false-alarm-rate", "0.05"]
    assert main([*map(str, arguments), *map(str, options)]) == 0
    return folder / "store"


@pytest.fixture
def store(trained_once: Path, tmp_path: Path) -> ModelStore:
    shutil.copytree(trained_once, tmp_path / "store")
    return ModelStore(tmp_path / "store")


@pytest.fixture
def labels(store: ModelStore, tmp_path: Path) -> Labels:
    return Labels(tmp_path, store.current("parts"))


def retrain(capsys: pytest.CaptureFixture[str], store: ModelStore, parts: Path, labels: Labels, *words: str) -> str:
    given = {"--store": store.root, "--data": parts, "--feedback": labels.file, "--images": labels.images}
    options = [str(word) for pair in given.items() for word in pair]
    capsys.readouterr()
    status = main(["retrain", "parts", *options, "--data-dir", str(store.root.parent / "data"), *words])
    out, err = capsys.readouterr()
    assert status == 0, err
    return " ".join(out.split())


def test_retraining_learns_labelled_normals_and_keeps_the_old_version(
    parts: Path, store: ModelStore, labels: Labels, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(1)
    pictures = [labels.add(part(random, light=0.55), "normal") for _ in range(40)]
    held_out = sum(int(picture[:8], 16) % 4 == 0 for picture in pictures)
    for _ in range(5):
        labels.add(part(random, light=0.55, defect=True), "anomaly")
    old = store.current("parts")
    out = retrain(capsys, store, parts, labels)
    assert f"{40 - held_out} normal ones to train on; held out: {held_out} normal, 5 anomalies" in out
    (new,) = set(store.versions("parts")) - {old}
    assert store.current("parts") == old
    assert f"activate parts {new}" in out
    # All of the changed light were false alarms, and most are no longer.
    assert f"labelled normal {held_out} {held_out} (100.0%) " in out
    flagged = int(out.split(f"labelled normal {held_out} {held_out} (100.0%) ")[1].split()[0])
    assert flagged <= held_out // 2
    assert "labelled anomaly 5 5 (100.0%) 5 (100.0%)" in out
    assert "spot 10 10 (100.0%) 10 (100.0%)" in out
    manifest = store.manifest("parts", new)
    assert manifest.training.split.fit == 80 + 40 - held_out
    assert manifest.evaluation is not None
    assert (manifest.evaluation.normal, manifest.evaluation.anomalies) == (10 + held_out, 15)
    assert manifest.input == store.manifest("parts", old).input


def test_retraining_activates_if_told(
    parts: Path, store: ModelStore, labels: Labels, capsys: pytest.CaptureFixture[str]
) -> None:
    old = store.current("parts")
    labels.add(part(np.random.default_rng(2)), "normal")
    out = retrain(capsys, store, parts, labels, "--activate", "--false-alarm-rate", "0.1")
    new = store.current("parts")
    assert new != old
    assert store.manifest("parts", new).false_alarm_rate == 0.1
    assert f"activate parts {old}" in out


def test_last_label_of_an_image_counts_and_only_stored_images_are_read(tmp_path: Path) -> None:
    labels, random = Labels(tmp_path, "v1"), np.random.default_rng(3)
    image = part(random)
    labels.add(image, "normal")
    corrected = labels.add(image, "anomaly")
    labels.add(part(random), "normal", model="other")
    labels.add(part(random), "normal", stored="")
    (tmp_path / "secret.png").write_bytes(image)
    labels.add(part(random), "normal", stored="../secret.png")
    (labels.images / "link.png").symlink_to(tmp_path / "secret.png")
    labels.add(part(random), "normal", stored="link.png")
    with labels.file.open("a") as file:
        file.write("{}\n")
    path = labels.images / f"{corrected}.png"
    assert labelled_images("parts", labels.file, labels.images) == LabelledImages(
        normal=(), held_out=(LabelledFile(path, "labelled", Path(path.name)),), missing=3, unreadable=1
    )


def test_labels_without_images_are_an_error_that_names_the_setting(tmp_path: Path) -> None:
    labels = Labels(tmp_path, "v1")
    labels.add(part(np.random.default_rng(4)), "normal", stored="")
    with pytest.raises(TrainingError, match=r"1 labels for parts, .* ANOMALY_FEEDBACK_IMAGES"):
        labelled_images("parts", labels.file, labels.images)


def test_built_in_sets_cannot_be_extended(
    store: ModelStore, labels: Labels, capsys: pytest.CaptureFixture[str]
) -> None:
    labels.add(part(np.random.default_rng(5)), "normal")
    files = ["--feedback", str(labels.file), "--images", str(labels.images)]
    assert main(["retrain", "parts", "--store", str(store.root), "--data", "digits", *files]) == 1
    assert "can be added to a folder or list of images, not to digits" in capsys.readouterr().err
