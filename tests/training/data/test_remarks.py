"""What decoding changed in a training set is counted and told, and explains images without contrast."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.deep_images import png
from tests.support import encode
from training.data import folders
from training.data.datasets import Dataset, Source, load
from training.data.remarks import Remark, counted
from training.data.suitability import doubts


def test_warnings_are_counted_by_kind() -> None:
    remarks = counted([("a", "b 1×2"), ("a", "a"), ("b 3.5×2", "a"), ("b 3.5×2",), ()])
    assert remarks == (Remark("a", 3, varies=False), Remark("b 3.5×2", 3, varies=True))
    assert [remark.line("normal") for remark in remarks] == [
        "3 normal images: a",
        "3 normal images: b 3.5×2 (most often; other numbers in others)",
    ]
    assert counted([("a",)])[0].line("test") == "1 test image: a"


def ink(random: np.random.Generator) -> Image.Image:
    """A black line on a transparent ground."""
    alpha = np.zeros((16, 16), np.uint8)
    alpha[random.integers(4, 12)] = 255
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.putalpha(Image.fromarray(alpha))
    return image


def folder_of(root: Path, files: list[bytes], kind: str = "normal") -> Path:
    (root / kind).mkdir(parents=True)
    for index, content in enumerate(files):
        (root / kind / f"{index}.png").write_bytes(content)
    return root


def read(folder: Path, **changes: Any) -> Dataset:
    options: dict[str, Any] = {"data_dir": folder.parent / "cache", "size": (16, 16), **changes}
    return load(Source(str(folder), **options))


def reasons(data: Dataset) -> list[str]:
    return doubts(data.normal, None, remarks=data.changes, background=data.spec.background)


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    return folder_of(tmp_path / "drawings", [encode(ink(random)) for _ in range(20)])


class TestFolder:
    def test_remarks_of_normal_and_test_images_are_told_also_from_the_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (7, 16, 20, 3), dtype=np.uint8)
        folder = folder_of(tmp_path / "parts", [encode(Image.fromarray(image)) for image in noise[:5]])
        folder_of(folder, [encode(Image.fromarray(image)) for image in noise[5:]], "test/normal")
        expected = (
            "5 normal images: colour was converted to grey",
            "5 normal images: resized from 20×16 to 16×16, which changed its proportions",
            "2 test images: colour was converted to grey",
            "2 test images: resized from 20×16 to 16×16, which changed its proportions",
        )
        assert read(folder, mode="L").remarks == expected
        monkeypatch.setattr(folders, "decode_files", lambda *_: pytest.fail("decoded again"))
        assert read(folder, mode="L").remarks == expected

    def test_images_without_changes_have_no_remarks(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)
        folder = folder_of(tmp_path / "parts", [encode(Image.fromarray(image)) for image in noise])
        assert read(folder).remarks == ()

    def test_black_ink_on_a_transparent_ground_has_no_contrast_on_black(self, drawings: Path) -> None:
        assert reasons(read(drawings))[0] == (
            "20 of 20 normal images have no contrast: transparency was flattened onto black; try --background white"
        )
        data = read(drawings, background="white")
        assert not any("contrast" in reason for reason in reasons(data))
        assert data.spec.background == "white"
        assert set(data.normal[:].flatten().tolist()) == {0, 1}
        assert data.remarks == ("20 normal images: transparency was flattened onto white",)

    def test_white_ink_on_a_transparent_ground_has_no_contrast_on_white(self, tmp_path: Path) -> None:
        images = []
        for _ in range(20):
            image = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
            image.putpixel((3, 3), (255, 255, 255, 255))
            images.append(encode(image))
        folder = folder_of(tmp_path / "drawings", images)
        assert reasons(read(folder, background="white"))[0].endswith("try --background black")
        assert read(folder).normal[:].amax() == 1

    def test_levels_that_leave_nothing_are_named(self, tmp_path: Path) -> None:
        values = np.random.default_rng(0).integers(0, 128, (20, 16, 16, 1), dtype=np.uint16)
        folder = folder_of(tmp_path / "parts", [png(image) for image in values])
        (reason, *_) = reasons(read(folder, levels="full"))
        assert re.search(r"no contrast: each uses only 8 of its 16 bits.*; try --levels auto", reason)
        assert read(folder).spec.levels == (0, 255)

    def test_few_images_without_contrast_are_accepted(self, drawings: Path) -> None:
        for index in range(100, 125):
            image = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
            image.putpixel((0, 0), (0, 0, 0, 0))
            (drawings / "normal" / f"{index}.png").write_bytes(encode(image))
        assert not any("contrast" in reason for reason in reasons(read(drawings)))
