"""The range of values that images of more than 8 bits use, and what training makes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from app.inference.images.decoding import ValueRange, open_image
from app.inference.images.model_input import Levels
from tests.deep_images import noise, png, tiff
from tests.support import encode, gradient
from training.data import levels
from training.data.datasets import Dataset, Source, load
from training.data.levels import fitting
from training.errors import TrainingError

UINT16 = Levels(0, 65535)
INT16 = Levels(-32768, 32767)


def used(lowest: float, highest: float, full: Levels = UINT16) -> ValueRange:
    return ValueRange(Levels(lowest, highest), full, is_float=full == (0, 1))


class TestFitting:
    @pytest.mark.parametrize(
        ("highest", "white"),
        [(0, 255), (255, 255), (256, 1023), (1024, 4095), (4095, 4095), (4096, 16383), (16383, 16383)],
    )
    def test_fewest_bits_that_hold_the_maximum_of_the_set(self, highest: int, white: int) -> None:
        assert fitting([used(0, 1), used(0, highest), used(0, 0)]) == Levels(0, white)

    def test_full_range_needs_no_levels(self) -> None:
        assert fitting([]) is None
        assert fitting([used(0, 16384)]) is None
        assert fitting([used(0, 65535)]) is None
        assert fitting([used(0, 4000, Levels(0, 4095))]) is None  # a TIFF file of 12 bits
        assert fitting([used(0, 4000, Levels(0, 4095)), used(0, 4000)]) == Levels(0, 4095)
        assert fitting([used(0, 60000, Levels(0, 2**32 - 1))]) == Levels(0, 65535)
        assert fitting([used(0, 70000, Levels(0, 2**32 - 1))]) is None

    def test_signed_values(self) -> None:
        assert fitting([used(0, 4000, INT16)]) == Levels(0, 4095)
        assert fitting([used(0, 32640, INT16)]) == Levels(0, 32767)
        assert fitting([used(-1, 4000, INT16)]) is None

    @pytest.mark.parametrize(("highest", "white"), [(1.0, None), (1.4, None), (255, 255), (256.5, 255), (4100, 4095)])
    def test_floating_point(self, highest: float, white: float | None) -> None:
        assert fitting([used(0, highest, Levels(0, 1))]) == (white and Levels(0, white))

    def test_floating_point_without_a_usual_range(self) -> None:
        with pytest.raises(TrainingError, match=r"values up to 1e\+06 are in no usual range: give --levels LOW:HIGH"):
            fitting([used(0, 1e6, Levels(0, 1))])
        assert fitting([used(-5, 1e6, Levels(0, 1))]) is None

    def test_kinds_with_different_ranges_are_refused(self) -> None:
        with pytest.raises(TrainingError, match="2 images have integers and 1 floating-point values"):
            fitting([used(0, 4095), used(0, 4095), used(0, 255, Levels(0, 1))])
        assert fitting([used(0, 255), used(0, 255, Levels(0, 1))]) == Levels(0, 255)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(gradient()), None),
        (encode(gradient().convert("RGB"), "JPEG"), None),
        (png(np.full((8, 8, 1), 700, np.uint16)), (Levels(700, 700), UINT16, False)),
        (png(np.full((8, 8, 3), 700, np.uint16)), (Levels(700, 700), UINT16, False)),
        (tiff(np.full((8, 8, 1), -3, np.int16), order=">"), (Levels(-3, -3), INT16, False)),
        (tiff(np.full((8, 8, 1), 99, np.float32), order=">"), (Levels(99, 99), Levels(0, 1), True)),
    ],
)
def test_range_of_a_file(data: bytes, expected: tuple[Levels, Levels, bool] | None) -> None:
    assert open_image(data, max_pixels=64).value_range() == expected


def write(folder: Path, values: list[NDArray[np.uint16]]) -> Path:
    (folder / "normal").mkdir(parents=True)
    for index, each in enumerate(values):
        (folder / "normal" / f"{index}.png").write_bytes(png(each))
    return folder


def read(folder: Path, **changes: Any) -> Dataset:
    options: dict[str, Any] = {"data_dir": folder.parent / "cache", "size": (8, 8), **changes}
    return load(Source(str(folder), **options))


class TestFolder:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_twelve_bits_in_16_are_learned_like_8_bits(self, tmp_path: Path, channels: int) -> None:
        shallow = [noise(channels, 8) for _ in range(5)]
        shallow[3][0] = 255
        deep = read(write(tmp_path / "deep", [each * 16 + each // 16 for each in shallow]))
        (tmp_path / "shallow" / "normal").mkdir(parents=True)
        for index, values in enumerate(shallow):
            pixels = values.astype(np.uint8).squeeze()
            Image.fromarray(pixels).save(tmp_path / "shallow" / "normal" / f"{index}.png")
        plain = read(tmp_path / "shallow")
        assert plain.spec.levels is None
        assert deep.spec == plain.spec.model_copy(update={"black": 0.0, "white": 4095.0})
        torch.testing.assert_close(deep.normal[:], plain.normal[:], atol=1e-3, rtol=0)
        assert deep.remarks == ()

    def test_colour_is_seen_in_the_range_that_is_used(self, tmp_path: Path) -> None:
        tinted = np.full((8, 8, 3), (4095, 4095, 3000), np.uint16)
        assert read(write(tmp_path / "deep", [tinted] * 3)).spec.mode == "RGB"

    def test_rules(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "deep", [noise(1, 12) for _ in range(4)])
        full = read(folder, levels="full")
        assert full.spec.levels is None
        assert full.normal[:].max() < 4096 / 65535
        assert full.remarks == ("4 normal images: uses only 12 of its 16 bits, and may be too dark for the model",)
        own = read(folder, levels=Levels(100, 2000))
        assert own.spec.levels == (100, 2000)
        (remark,) = own.remarks
        assert remark.startswith("4 normal images: ")
        assert remark.endswith(
            " % of the values are outside 100 to 2,000 and were clipped (most often; other numbers in others)"
        )

    def test_images_of_8_bits_and_unreadable_files_do_not_count(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "deep", [noise(1, 12) for _ in range(4)])
        (folder / "normal" / "a.png").write_bytes(encode(gradient()))
        (folder / "normal" / "b.png").write_bytes(b"nothing")
        assert read(folder).spec.levels == (0, 4095)

    def test_test_images_do_not_count(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "deep", [noise(1, 12) for _ in range(4)])
        (folder / "test" / "normal").mkdir(parents=True)
        (folder / "test" / "normal" / "0.png").write_bytes(png(np.full((8, 8, 1), 8190, np.uint16)))
        data = read(folder)
        assert data.spec.levels == (0, 4095)
        assert data.remarks == ("1 test image: 100 % of the values are outside 0 to 4,095 and were clipped",)

    def test_what_was_found_is_cached_until_a_file_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = write(tmp_path / "deep", [noise(1, 12) for _ in range(4)])
        first = read(folder, levels="auto", mode="L")
        with monkeypatch.context() as patched:
            patched.setattr(levels, "open_image", lambda *_, **__: pytest.fail("read again"))
            again = read(folder, levels="auto", mode="L")
        assert again.spec == first.spec
        (folder / "normal" / "0.png").write_bytes(png(np.full((8, 8, 1), 5000, np.uint16)))
        assert read(folder, mode="L").spec.levels == (0, 16383)

    def test_cached_images_depend_on_the_levels(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "deep", [noise(1, 12) for _ in range(4)])
        bright = read(folder, levels=Levels(0, 1000)).normal[:]
        assert bright.mean() > 1.5 * read(folder, levels=Levels(0, 4095)).normal[:].mean()
