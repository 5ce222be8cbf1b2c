"""Whole runs on folders as they come: clutter, links, layouts, copies, planted defects, and lists of exclusions."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.api.schemas.model_cards import ModelCard
from app.inference.bundles.manifest import Manifest
from app.inference.bundles.store import ModelStore
from training.__main__ import main

SIDE = 16


def ring(random: np.random.Generator, *, gap: bool = False) -> Image.Image:
    """A grey ring in noise; a defect is a gap."""
    y, x = np.mgrid[:SIDE, :SIDE]
    row, column = random.normal(SIDE / 2, 0.3, 2)
    on_ring = abs(np.hypot(y - row, x - column) - 5) < 1.2
    pixels = 30 + random.normal(150, 3) * on_ring + random.normal(0, 4, (SIDE, SIDE))
    if gap:
        turned = (np.arctan2(y - row, x - column) - random.uniform(0, 6)) % (2 * np.pi)
        pixels[on_ring & (turned < 1)] = 30
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(folder: Path, count: int, *, gap: bool = False, seed: int = 0, name: str = "{:03}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        image = ring(random, gap=gap)
        image.save(folder / name.format(number), "JPEG" if ".j" in name.lower() else "PNG")
    return folder


class Workplace:
    """A model store, and the commands on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = ModelStore(folder / "store")
        self._folder = folder
        self._capsys = capsys

    def run(self, *words: object) -> tuple[int, str, str]:
        options = ["--false-alarm-rate", "0.1", "--store", str(self.store.root)]
        status = main([*map(str, words), *options])
        out, err = self._capsys.readouterr()
        return status, out, err

    def train(self, data: Path, *words: object) -> tuple[int, str, str]:
        options = ["--name", "m", "--recipe", "linear", "--size", SIDE, "--groups", "none"]
        return self.run("--data", data, "--data-dir", self._folder / "data", *options, *words)

    @property
    def manifest(self) -> Manifest:
        return self.store.manifest("m")


@pytest.fixture
def workplace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    return Workplace(tmp_path, capsys)


def test_clutter_changes_neither_the_model_nor_the_threshold(workplace: Workplace, tmp_path: Path) -> None:
    parts = write(tmp_path / "parts" / "normal", 60).parent
    assert workplace.train(parts)[0] == 0
    clean = workplace.manifest
    white = Image.new("L", (SIDE, SIDE), 255)
    for place in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        (parts / "normal" / place).mkdir()
        for number in range(5):
            white.save(parts / "normal" / place / f"{number}.png")
    for name in ("._000.png", "Thumbs.db", "a.psd", "b.psd", "notes.txt"):
        (parts / "normal" / name).write_bytes(b"nothing")
    lines = ["3 files not looked at: .psd 2, .txt 1", "5 hidden and system entries passed over"]
    status, out, _ = workplace.train(parts)
    assert status == 0
    assert workplace.manifest.threshold == clean.threshold
    assert workplace.manifest.data == clean.data
    assert [line for line in out.splitlines() if line.startswith("note ")] == [f"note {line}" for line in lines]

    status, out, _ = workplace.run("recalibrate", "m", "--images", parts)
    assert status == 0
    assert workplace.manifest.calibration.size == 60
    assert [line for line in out.splitlines() if line.startswith("note ")] == [f"note {line}" for line in lines]


def test_linked_folders_and_all_suffixes_are_read(workplace: Workplace, tmp_path: Path) -> None:
    for number, suffix in enumerate((".jfif", ".JPG", ".Jpeg")):
        write(tmp_path / "elsewhere" / str(number), 20, seed=number, name=f"{{:03}}{suffix}")
    parts = tmp_path / "parts"
    (parts / "normal").mkdir(parents=True)
    for number in range(3):
        (parts / "normal" / str(number)).symlink_to(tmp_path / "elsewhere" / str(number))
    (parts / "normal" / "loop").symlink_to(parts)
    status, out, _ = workplace.train(parts)
    assert status == 0
    assert "60 normal images: " in out
    assert "note " not in out


def test_mvtec_layout_from_files_to_figures(workplace: Workplace, tmp_path: Path) -> None:
    root = tmp_path / "bottle"
    write(root / "train" / "good", 60)
    write(root / "test" / "good", 10, seed=1)
    write(root / "test" / "gap", 10, gap=True, seed=2)
    write(root / "ground_truth" / "gap", 10, gap=True, seed=3, name="{:03}_mask.png")
    assert workplace.train(root)[0] == 0
    evaluation = workplace.manifest.evaluation
    assert evaluation is not None
    assert (evaluation.normal, set(evaluation.kinds), evaluation.auroc) == (10, {"normal", "gap"}, 1)
    assert (workplace.manifest.data.source, workplace.manifest.calibration.size) == ("bottle", 60)


def test_label_list_from_lines_to_figures(workplace: Workplace, tmp_path: Path) -> None:
    write(tmp_path / "set" / "images", 60)
    write(tmp_path / "set" / "images", 10, gap=True, name="gap{:03}.png")
    lines = []
    for file in sorted((tmp_path / "set" / "images").iterdir()):
        name = "gap" if file.name.startswith("gap") else "normal"
        metadata = {"class-name": name, "type": "groundtruth/image-classification"}
        address = f"s3://bucket/project/images/{file.name}"
        lines.append({"source-ref": address, "anomaly-label": int(name == "gap"), "anomaly-label-metadata": metadata})
    (tmp_path / "set" / "output.manifest").write_text("\n".join(map(json.dumps, lines)))
    assert workplace.train(tmp_path / "set" / "output.manifest")[0] == 0
    manifest = workplace.manifest
    assert manifest.evaluation is not None
    assert (manifest.calibration.size, manifest.evaluation.kinds["gap"].count) == (60, 10)
    assert manifest.evaluation.detection_rate == 1
    assert workplace.run("--data", tmp_path / "set" / "output.manifest", "--recipe", "linear", "--size", SIDE)[0] == 0
    assert "output" in workplace.store.contents()  # the name of the model


@pytest.mark.parametrize(
    ("count", "copies", "reason"),
    [
        (12, 1, "only 12 different normal images to fit a model on, which needs at least 20"),
        (1, 60, "the 60 normal images are copies of 1: so few say little about others"),
    ],
)
def test_unsuitable_images_are_refused_or_published_with_a_warning(
    count: int, copies: int, reason: str, workplace: Workplace, tmp_path: Path
) -> None:
    for copy in range(copies):
        write(tmp_path / "parts" / "normal", count, name=f"{{:03}}-{copy}.png")
    status, _, err = workplace.train(tmp_path / "parts")
    assert (status, err) == (1, f"error: {reason}. Nothing was published; --force publishes a model that says so\n")
    assert workplace.store.contents() == {}

    status, out, _ = workplace.train(tmp_path / "parts", "--force")
    assert status == 0
    assert f"WARNING {reason}; published because of --force" in out
    manifest = workplace.manifest
    assert manifest.warnings == (reason,)
    assert ModelCard.of(manifest).warnings == (reason,)
    assert f"Warning: {reason}." in workplace.store.file(manifest, "report/index.html").decode()
    assert workplace.store.load("m", manifest.version).manifest == manifest
    assert main(["show", "m", "--store", str(workplace.store.root)]) == 0


def test_a_threshold_from_copies_is_refused_or_published_with_a_warning(workplace: Workplace, tmp_path: Path) -> None:
    assert workplace.train(write(tmp_path / "parts" / "normal", 40).parent)[0] == 0
    assert b"warnings" not in workplace.manifest.to_bytes()
    for copy in range(30):
        write(tmp_path / "new", 1, name=f"{{}}-{copy}.png")
    reason = "the 30 normal images are copies of 1: so few say little about others"
    assert reason in workplace.run("recalibrate", "m", "--images", tmp_path / "new")[2]
    status, out, _ = workplace.run("recalibrate", "m", "--images", tmp_path / "new", "--force")
    assert status == 0
    assert f"WARNING {reason}" in out
    assert workplace.manifest.warnings == (reason,)


class TestPlantedDefects:
    @pytest.fixture
    def parts(self, tmp_path: Path) -> Path:
        write(tmp_path / "parts" / "normal", 120)
        return write(tmp_path / "parts" / "normal", 6, gap=True, seed=1, name="bad{}.png").parent

    def test_they_are_among_the_ten_that_are_named_and_shown(self, parts: Path, workplace: Workplace) -> None:
        status, out, _ = workplace.train(parts)
        assert status == 0
        named = [line.split()[-1] for line in out.splitlines() if line.startswith("suspicious ")]
        assert len(named) == 10
        assert {f"normal/bad{number}.png" for number in range(6)} <= set(named)
        manifest = workplace.manifest
        page = workplace.store.file(manifest, "report/index.html").decode()
        positions = [page.index(f"<li>{name}: ") for name in named]
        assert positions == sorted(positions)
        assert "report/suspicious.png" in manifest.files

    def test_excluded_images_are_neither_learned_nor_calibrated_with(self, parts: Path, workplace: Workplace) -> None:
        assert workplace.train(parts)[0] == 0
        before = workplace.manifest
        assert before.data.excluded == 0
        assert b"excluded" not in before.to_bytes()  # older programs reject fields that they do not know
        listed = parts / "bad.txt"
        listed.write_text("# gaps\n" + "".join(f"normal/bad{number}.png\n" for number in range(6)))
        status, out, _ = workplace.train(parts, "--exclude", listed)
        assert status == 0
        assert "note 6 images excluded" in out
        assert "120 normal images: " in out
        assert "bad0.png" not in out
        after = workplace.manifest
        assert (after.data.excluded, after.calibration.size) == (6, 120)
        assert after.threshold < before.threshold
        assert Manifest.from_bytes(after.to_bytes()).data == after.data

        status, out, _ = workplace.run("recalibrate", "m", "--images", parts)
        assert {line.split()[-1] for line in out.splitlines() if line.startswith("suspicious ")} >= {
            f"normal/bad{number}.png" for number in range(6)
        }
        assert workplace.run("recalibrate", "m", "--images", parts, "--exclude", listed)[0] == 0
        recalibration = workplace.manifest.recalibration
        assert recalibration is not None
        assert (recalibration.data.excluded, workplace.manifest.calibration.size) == (6, 120)
        page = workplace.store.file(workplace.manifest, "report/index.html").decode()
        assert "<li>normal/" in page

    def test_a_listed_file_that_does_not_exist_is_an_error(self, parts: Path, workplace: Workplace) -> None:
        (parts / "bad.txt").write_text("normal/bad7.png\n")
        status, _, err = workplace.train(parts, "--exclude", parts / "bad.txt")
        assert status == 1
        assert "bad.txt lists normal/bad7.png, which does not exist in " in err

    def test_built_in_sets_and_labels_have_nothing_to_exclude(self, parts: Path, workplace: Workplace) -> None:
        assert "--exclude is for folders" in workplace.run("--data", "digits", "--exclude", parts)[2]
        assert workplace.train(parts)[0] == 0
        words = ["recalibrate", "m", "--feedback", parts, "--exclude", parts]
        assert "--exclude is for --images" in workplace.run(*words)[2]
