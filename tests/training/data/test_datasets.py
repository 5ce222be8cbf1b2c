import hashlib
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.inference.images.decoding import open_image
from app.inference.images.model_input import Fit, InputSpec
from tests.support import encode, gradient
from training.__main__ import main
from training.data import folders
from training.data.datasets import Dataset, Source, load
from training.errors import TrainingError


def read(source: str | Path, **changes: Any) -> Dataset:
    options: dict[str, Any] = {"normal": (5,), "data_dir": Path("nowhere"), **changes}
    return load(Source(str(source), **options))


class TestDigits:
    def test_train_and_test_do_not_overlap(self) -> None:
        data = read("digits")
        assert data.normal.shape[1:] == (1, 8, 8)
        train = {image.numpy().tobytes() for image in data.normal}
        assert not train & {image.numpy().tobytes() for image in data.test}
        assert 0 < data.test_kinds.count("normal") < len(data.test_kinds)
        assert set(data.test_kinds) == {"normal", *"012346789"}

    def test_png_files_of_the_images_decode_to_the_same_tensors(self) -> None:
        data = read("digits")
        for image in data.normal[:20]:
            png = encode(Image.fromarray((image[0].numpy() * 255).round().astype(np.uint8)))
            assert torch.equal(open_image(png, max_pixels=100).decode(data.spec).tensor, image)

    def test_several_normal_labels(self) -> None:
        data = read("digits", normal=(3, 5))
        assert data.normal_label == "3,5"
        assert len(data.normal) > len(read("digits").normal)
        assert "3" not in data.test_kinds

    @pytest.mark.parametrize("normal", [(10,), (), (5, 11)])
    def test_unknown_labels(self, normal: tuple[int, ...]) -> None:
        with pytest.raises(TrainingError, match="labels from 0 to 9"):
            read("digits", normal=normal)

    def test_fingerprint_depends_on_the_images(self) -> None:
        assert read("digits").fingerprint == read("digits").fingerprint != read("digits", normal=(4,)).fingerprint


def write_mnist_files(folder: Path, *, count: int = 40) -> None:
    """Small files in the original format, in the folder layout of torchvision."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, size in (("train", count), ("t10k", count // 2)):
        images = random.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = (np.arange(size) % 10).astype(np.uint8)
        for name, magic, array in (
            (f"{part}-images-idx3-ubyte", (0x803, size, 28, 28), images),
            (f"{part}-labels-idx1-ubyte", (0x801, size), labels),
        ):
            content = struct.pack(f">{len(magic)}I", *magic) + array.tobytes()
            (folder / name).write_bytes(content)


class TestMnistFiles:
    @pytest.mark.parametrize(("source", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
    def test_existing_files_are_read(self, tmp_path: Path, source: str, folder: str) -> None:
        write_mnist_files(tmp_path / folder / "raw")
        data = read(source, data_dir=tmp_path)
        assert (data.normal.shape, data.test.shape) == ((4, 1, 28, 28), (20, 1, 28, 28))
        assert data.test_kinds.count("normal") == 2

    def test_missing_files_without_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")  # no server listens there
        with pytest.raises(TrainingError, match=r"MNIST/raw and cannot be downloaded .*by hand") as caught:
            read("mnist", data_dir=tmp_path)
        assert "\n" not in str(caught.value)


class TestFolder:
    @pytest.fixture(autouse=True)
    def _temporary_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name, count in (
            ("normal/a", 3),
            ("normal/b/deep", 2),
            ("normal", 2),
            ("test/normal", 2),
            ("test/anomaly/hole", 3),
        ):
            target = tmp_path / "parts" / name
            target.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (target / f"{i}.png").write_bytes(encode(gradient(20 + i, 30)))
        return tmp_path / "parts"

    def test_images_kinds_and_groups(self, folder: Path) -> None:
        data = read(folder)
        assert data.source == "parts"
        assert data.normal.shape == (7, 1, 64, 64)
        assert data.groups == ("0.png", "1.png", "a", "a", "a", str(Path("b/deep")), str(Path("b/deep")))
        assert data.test_kinds == ("normal", "normal", "hole", "hole", "hole")

    def test_files_are_decoded_as_in_the_service(self, folder: Path) -> None:
        data = read(folder, size=(16, 24))
        png = (folder / "normal" / "0.png").read_bytes()
        assert torch.equal(data.normal[0], open_image(png, max_pixels=10**6).decode(data.spec).tensor)

    @pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
    def test_fit_decides_how_images_of_other_proportions_are_decoded(
        self, folder: Path, tmp_path: Path, fit: Fit
    ) -> None:
        for each in (fit, "stretch"):  # the cache keeps them apart
            data = read(folder, size=(16, 24), fit=each, data_dir=tmp_path / "cache")
            assert data.spec == InputSpec(mode="L", height=16, width=24, fit=each, reduction="area", jpeg="scaled")
            png = (folder / "normal" / "0.png").read_bytes()
            assert torch.equal(data.normal[0], open_image(png, max_pixels=10**6).decode(data.spec).tensor)

    def test_images_are_held_as_8_bits_until_one_of_the_files_has_more(self, folder: Path, tmp_path: Path) -> None:
        shallow = read(folder, data_dir=tmp_path / "cache")
        assert shallow.normal.pixels.dtype == np.uint8
        deep = np.add.outer(np.arange(30), np.arange(20)).astype(np.uint16) * 1001
        (folder / "normal" / "a" / "1a.png").write_bytes(encode(Image.fromarray(deep)))
        for _ in ("decoded", "from the cache"):
            data = read(folder, data_dir=tmp_path / "cache")
            assert data.normal.pixels.dtype == np.float32
            assert data.test.pixels.dtype == np.uint8
            for image, file in zip(data.normal, data.normal_files, strict=True):
                png = (folder / file).read_bytes()
                assert torch.equal(image, open_image(png, max_pixels=10**6).decode(data.spec).tensor)

    def test_fingerprint_is_that_of_the_float32_values(self, folder: Path) -> None:
        data = read(folder)
        assert data.fingerprint == hashlib.sha256(data.normal[:].numpy().tobytes()).hexdigest()

    def test_images_are_read_without_a_cache_too(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        cached, uncached = (read(folder, data_dir=tmp_path / name) for name in ("cache", "file"))
        assert isinstance(cached.normal.pixels, np.memmap)
        assert not isinstance(uncached.normal.pixels, np.memmap)
        assert torch.equal(cached.normal[:], uncached.normal[:])
        files = (tmp_path / "cache" / "decoded").iterdir()
        assert sorted(path.suffix for path in files) == [".json", ".json", ".levels", ".npy", ".npy"]

    def test_colour_is_detected_and_mode_overrides_it(self, folder: Path) -> None:
        (folder / "normal" / "red.jpg").write_bytes(encode(Image.new("RGB", (9, 9), (250, 0, 0)), "JPEG"))
        assert read(folder).spec.mode == "RGB"
        assert read(folder, mode="L").spec.mode == "L"

    def test_unreadable_files_are_listed_and_skipped(self, folder: Path) -> None:
        (folder / "normal" / "a" / "broken.png").write_bytes(b"nothing")
        (folder / "normal" / "a" / "notes.txt").write_text("not an image")
        data = read(folder)
        assert len(data.normal) == 7
        ((path, reason),) = data.unreadable
        assert path.name == "broken.png"
        assert "not a readable image" in reason

    @pytest.mark.parametrize(
        ("make", "message"),
        [("", "neither a folder nor"), ("parts", "contains no images"), ("parts/normal", "contains no images")],
    )
    def test_missing_images(self, tmp_path: Path, make: str, message: str) -> None:
        (tmp_path / make).mkdir(parents=True, exist_ok=True)
        with pytest.raises(TrainingError, match=message):
            read(tmp_path / "parts")

    def test_only_unreadable_images(self, tmp_path: Path) -> None:
        (tmp_path / "normal").mkdir()
        (tmp_path / "normal" / "a.png").write_bytes(b"nothing")
        with pytest.raises(TrainingError, match="none of the 1 images"):
            read(tmp_path)

    def test_folder_without_test_images(self, folder: Path) -> None:
        shutil.rmtree(folder / "test")
        data = read(folder)
        assert data.test.shape == (0, 1, 64, 64)
        assert data.test_kinds == ()

    @pytest.mark.parametrize(
        ("rule", "groups"),
        [
            ("folder", ("0.png", "1.png", "a", "a", "a", "b/deep", "b/deep")),
            ("none", ("0.png", "1.png", "a/0.png", "a/1.png", "a/2.png", "b/deep/0.png", "b/deep/1.png")),
            (r"(\d)\.png", ("0", "1", "0", "1", "2", "0", "1")),
            ("^[ab]", ("0.png", "1.png", "a", "a", "a", "b", "b")),
        ],
    )
    def test_group_rules(self, folder: Path, rule: str, groups: tuple[str, ...]) -> None:
        assert read(folder, groups=rule).groups == groups

    def test_unusual_file_names(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        unusual = folder / "normal" / "x[" / "y]"
        unusual.mkdir(parents=True)
        for i in range(20):
            (unusual / f"{i}.png").write_bytes(encode(gradient(9, 9 + i)))
        (unusual / "broken[red].png").write_bytes(b"nothing")
        (unusual / os.fsdecode(b"caf\xe9.png")).write_bytes(encode(gradient(9, 9)))
        options = ["--data-dir", str(tmp_path / "cache"), "--store", str(tmp_path / "store"), "--groups", "none"]
        options += ["--recipe", "linear", "--false-alarm-rate", "0.1", "--size", "16", "--name", "unusual"]
        assert main(["--data", str(folder), *options]) == 0
        assert "x[/y]/broken[red].png: not a readable image" in capsys.readouterr().out.replace("\n", "")

    def test_decoded_images_are_cached_until_a_file_changes(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from training.data import folders

        (folder / "normal" / "broken.png").write_bytes(b"nothing")
        first = read(folder, data_dir=tmp_path / "cache", mode="L")
        with monkeypatch.context() as patched:
            patched.setattr(folders, "decode_files", lambda *_, **__: pytest.fail("decoded again"))
            again = read(folder, data_dir=tmp_path / "cache", mode="L")
        assert torch.equal(first.normal[:], again.normal[:])
        assert first.unreadable == again.unreadable
        assert first.fingerprint == again.fingerprint
        (folder / "normal" / "0.png").write_bytes(encode(gradient(9, 9)))
        assert read(folder, data_dir=tmp_path / "cache", mode="L").fingerprint != first.fingerprint


def test_typical_size_is_within_the_limits_of_an_input(tmp_path: Path) -> None:
    files = []
    for number, size in enumerate([(3000, 2), (3000, 1), (2600, 3), (20, 900)]):
        files.append(tmp_path / f"{number}.png")
        Image.new("L", size).save(files[-1])
    assert folders.typical_size(files[:3]) == (4, 2048)
    assert folders.typical_size([]) == (4, 4)
