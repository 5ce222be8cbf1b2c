"""JPEG files: complete ones decode as with Pillow; cut ones are rejected, also if an end marker was put on."""

import io

import numpy as np
import pytest
from PIL import Image

from app.inference.errors import UnreadableImage
from app.inference.images.codecs import jpeg
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from tests.support import encode

END = b"\xff\xd9"
MISSING_END = "the end marker of the JPEG file is missing"
OPTIONS = [
    {}, {"quality": 95, "subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"optimize": True}, {"quality": 5},
    {"restart_marker_blocks": 7}, {"restart_marker_rows": 1}, {"progressive": True},
    {"progressive": True, "quality": 5}, {"progressive": True, "restart_marker_rows": 1},
]  # fmt: skip


def photograph(width: int = 350, height: int = 250, mode: str = "RGB") -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def load(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    image = Image.open(io.BytesIO(data))
    assert isinstance(image, Image.Image)
    warnings = jpeg.read_structure(data).load(image)
    return np.asarray(image), warnings


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
class TestEveryKind:
    @pytest.mark.parametrize("size", [(350, 250), (37, 21), (8, 8), (1, 1)])
    def test_complete_files_decode_as_with_pillow(
        self, mode: str, options: dict[str, object], size: tuple[int, int]
    ) -> None:
        data = encode(photograph(*size, mode), "JPEG", **options)
        expected = np.asarray(Image.open(io.BytesIO(data)))
        for whole in (data, data + b"trailing bytes", data + data, data + b"\xff\xda\xff\xd9\xff"):
            pixels, warnings = load(whole)
            assert np.array_equal(pixels, expected)
            assert warnings == ()

    def test_file_without_its_end_marker_is_decoded_with_a_warning(self, mode: str, options: dict[str, object]) -> None:
        data = encode(photograph(mode=mode), "JPEG", **options)
        for unfinished in (
            data[:-2],
            data[:-1],
            data[:-2] + bytes(99),
            data[:-2] + b"a trailer of some other program" * 20,
        ):
            pixels, warnings = load(unfinished)
            assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(data))))
            assert warnings == (MISSING_END,)

    def test_cut_files_are_rejected(self, mode: str, options: dict[str, object]) -> None:
        data = encode(photograph(mode=mode), "JPEG", **options)
        first = data.index(b"\xff\xda") + 14
        # The loss of the last few blocks may pass.
        for cut in np.random.default_rng(1).integers(first, first + (len(data) - first) * 95 // 100, 40):
            for end in (b"", END, b"a trailer of some other program"[:7] + END, bytes(len(data))):
                with pytest.raises(UnreadableImage, match=r"incomplete|damaged"):
                    load(data[:cut] + end)


def test_cut_at_a_restart_marker_is_noticed() -> None:
    """There, the decoder looks for a marker, as after the last block."""
    for options in ({}, {"progressive": True}):
        data = encode(photograph(), "JPEG", restart_marker_rows=1, **options)
        begin = data.rindex(b"\xff\xda")
        restarts = [at for at in range(begin, len(data)) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
        assert len(restarts) > 5
        for at in restarts:
            for cut in (data[:at], data[: at + 2]):
                with pytest.raises(UnreadableImage, match="incomplete"):
                    load(cut + END)


def test_cut_between_close_restart_markers_is_noticed() -> None:
    """Three blocks between two markers can be less than what the decoder reads ahead."""
    coarse = np.random.default_rng(0).integers(0, 256, (203, 317), dtype=np.uint8)
    narrow = Image.fromarray(coarse).resize((17, 300))
    data = encode(narrow, "JPEG", quality=30, progressive=True, restart_marker_rows=1)
    begin = data.rindex(b"\xff\xda") + 10
    for cut in range(begin, begin + (len(data) - begin) * 9 // 10):
        with pytest.raises(UnreadableImage, match="incomplete"):
            load(data[:cut] + END)


def test_progressive_file_without_its_last_scans_is_rejected() -> None:
    data = encode(photograph(), "JPEG", progressive=True)
    scans = [end for end, _ in jpeg.read_structure(data).scans]
    assert len(scans) == 10
    for end in scans[:-1]:
        with pytest.raises(UnreadableImage, match="incomplete"):
            load(data[:end] + END)
    load(data[: scans[-1]] + END)


def test_file_without_a_channel_is_rejected() -> None:
    """A file with a scan for each channel, of which the last is left out."""
    grey = encode(photograph(64, 64, "L"), "JPEG")
    three = grey.replace(
        b"\xff\xc0\x00\x0b\x08\x00\x40\x00\x40\x01\x01\x11\x00",
        b"\xff\xc0\x00\x11\x08\x00\x40\x00\x40\x03" + b"".join(bytes([channel, 0x11, 0]) for channel in (1, 2, 3)),
    )
    scan = grey.index(b"\xff\xda")
    channel = [grey[scan:-2].replace(b"\x01\x01\x00\x00\x3f", bytes([1, each, 0, 0, 63]), 1) for each in (1, 2, 3)]
    begin = three[: three.index(b"\xff\xda")]
    pixels, _ = load(begin + b"".join(channel) + END)
    assert pixels.shape == (64, 64, 3)
    with pytest.raises(UnreadableImage, match="incomplete"):
        load(begin + b"".join(channel[:2]) + END)


def test_marker_within_the_data_ends_them() -> None:
    """libjpeg shows grey from there on, although the rest of the data follows."""
    data = encode(photograph(), "JPEG")
    middle = data.index(b"\xff\xda") + len(data) // 2
    with pytest.raises(UnreadableImage, match="incomplete"):
        load(data[:middle] + b"\xff\xe5\x00\x04ab" + data[middle:])


@pytest.mark.parametrize("segment", [b"\xff\xda\x00\x02", b"\xff\xda\x00\x03\x05", b"\xff\xc0\x00\x02"])
def test_damaged_segments_are_rejected(segment: bytes) -> None:
    data = encode(photograph(16, 16), "JPEG")
    at = data.index(b"\xff\xc0")
    with pytest.raises(UnreadableImage):
        open_image(data[:at] + segment + data[at:], max_pixels=1000).decode(InputSpec(mode="L", height=8, width=8))


class TestSeveralPictures:
    """Phones append a preview, a depth map or a gain map to the photograph."""

    def test_photograph_is_one_picture(self) -> None:
        photo = photograph(64, 64)
        data = encode(photo, "MPO", save_all=True, append_images=[photo.resize((16, 16))])
        assert Image.open(io.BytesIO(data)).format == "MPO"
        assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
        decoded = open_image(data, max_pixels=4096).decode(InputSpec(mode="RGB", height=64, width=64))
        expected = np.asarray(Image.open(io.BytesIO(encode(photo, "JPEG"))))
        assert np.array_equal(np.moveaxis(decoded.pixels, 0, -1), expected)
        assert decoded.warnings == ()

    def test_photograph_that_was_cut_is_rejected(self) -> None:
        photo = photograph(64, 64)
        data = encode(photo, "MPO", save_all=True, append_images=[photo])
        cut = data[: data.index(END) - 400] + END + data[data.index(END) + 2 :]
        with pytest.raises(UnreadableImage, match="incomplete"):
            open_image(cut, max_pixels=4096).decode(InputSpec(mode="RGB", height=64, width=64))
