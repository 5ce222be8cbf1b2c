"""The short way into a PNG file: it takes plain files, agrees with Pillow on them, and leaves it all others."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, PngImagePlugin

from app.inference.plain_png import read_plain_png
from tests.support import encode, gradient

_SIDES = st.integers(1, 40)
PICTURES = st.tuples(_SIDES, _SIDES, st.sampled_from([(), (3,)])).flatmap(
    lambda shape: arrays(np.uint8, (*shape[:2], *shape[2]))
)


def pillow(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=["PNG"])
    image.load()
    return image


@given(PICTURES)
def test_it_sees_what_pillow_sees(pixels: np.ndarray) -> None:
    data = encode(Image.fromarray(pixels), "PNG")
    plain = read_plain_png(data)
    assert plain is not None
    assert np.array_equal(plain, np.asarray(pillow(data)))
    assert np.array_equal(plain, pixels)


def test_rows_may_be_spread_over_many_chunks() -> None:
    image = gradient(20, 10)
    data = encode(image, "PNG")
    rows = data[data.index(b"IDAT") + 4 : -16]
    crumbs = b"".join(_chunk(b"IDAT", rows[at : at + 7]) for at in range(0, len(rows), 7))
    plain = read_plain_png(data[:33] + crumbs + data[-12:])
    assert plain is not None
    assert plain.tobytes() == image.tobytes()


@pytest.mark.parametrize("colour", [False, True])
def test_rows_that_are_missing_are_black_not_those_of_the_last_picture(colour: bool) -> None:
    image = gradient(20, 10).convert("RGB" if colour else "L")
    line = 1 + 20 * (3 if colour else 1)
    whole = encode(image, "PNG")
    before = read_plain_png(whole)
    assert before is not None
    rows = zlib.decompress(whole[whole.index(b"IDAT") + 4 : -16])
    cut = whole[:33] + _chunk(b"IDAT", zlib.compress(rows[: 4 * line])) + whole[-12:]
    short = read_plain_png(cut)
    if short is not None:  # Pillow takes it, too
        assert np.array_equal(short, np.asarray(pillow(cut)))
        assert short[4:].max() == 0
    assert before[4:].max() > 0  # and the last picture is still its own


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "I;16"])
def test_other_modes_are_pillows(mode: str) -> None:
    assert read_plain_png(encode(gradient(8, 8).convert(mode), "PNG")) is None


@pytest.mark.parametrize("image_format", ["JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_are_pillows(image_format: str) -> None:
    assert read_plain_png(encode(gradient(8, 8), image_format)) is None


def test_what_says_more_than_its_pixels_is_pillows() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "a chunk more")
    for extra in ({"pnginfo": texts}, {"transparency": 7}, {"dpi": (72, 72)}, {"exif": b"Exif\0\0"}):
        buffer = io.BytesIO()
        gradient(8, 8).save(buffer, "PNG", **extra)
        assert read_plain_png(buffer.getvalue()) is None, extra


def test_large_pictures_are_pillows() -> None:
    assert read_plain_png(encode(gradient(256, 256), "PNG")) is not None
    assert read_plain_png(encode(gradient(257, 256), "PNG")) is None


def test_what_is_damaged_is_pillows_or_harmless() -> None:
    """Every bit is covered by a checksum: whatever is still taken shows the same pixels."""
    image = gradient(9, 7)
    data = encode(image, "PNG")
    for at in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        assert read_plain_png(bytes(damaged)) is None
    for length in range(len(data)):
        assert read_plain_png(data[:length]) is None


def test_what_pillow_forgives_is_forgiven_alike() -> None:
    """Too few rows, and rows that do not decompress, behind good checksums."""
    data = encode(gradient(9, 7), "PNG")
    tall = _chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 70, 8, 0, 0, 0, 0))
    rows = data[data.index(b"IDAT") + 4 : -16]
    seed = random.Random(1)
    files = [data[:8] + tall + data[33:]]
    for _ in range(300):
        mutated = bytearray(rows)
        mutated[seed.randrange(len(rows))] = seed.randrange(256)
        files.append(data[:33] + _chunk(b"IDAT", bytes(mutated)) + data[-12:])
    taken = [(plain, pillow(file)) for file in files if (plain := read_plain_png(file)) is not None]
    assert len(taken) > 1
    assert all(plain.tobytes() == seen.tobytes() for plain, seen in taken)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
