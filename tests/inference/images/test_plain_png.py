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

from app.inference.images.plain_png import read_plain_pngs
from tests.support import encode, gradient

_SIDES = st.integers(1, 40)
IMAGES = st.tuples(_SIDES, _SIDES, st.sampled_from([(), (3,)])).flatmap(
    lambda shape: arrays(np.uint8, (*shape[:2], *shape[2]))
)


def read_plain_png(data: bytes) -> np.ndarray | None:
    (pixels,) = read_plain_pngs([data], max_pixels=10**6)
    return pixels


def as_array(levels: np.ndarray) -> np.ndarray:
    """(C, H, W) as Pillow lays images out: (H, W) or (H, W, 3)."""
    return levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1)


def pillow(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=["PNG"])
    image.load()
    return image


@given(IMAGES)
def test_it_sees_what_pillow_sees(pixels: np.ndarray) -> None:
    data = encode(Image.fromarray(pixels), "PNG")
    plain = read_plain_png(data)
    assert plain is not None
    assert np.array_equal(as_array(plain), np.asarray(pillow(data)))
    assert np.array_equal(as_array(plain), pixels)


def test_rows_may_be_spread_over_many_chunks() -> None:
    image = gradient(20, 10)
    data = encode(image, "PNG")
    rows = data[data.index(b"IDAT") + 4 : -16]
    crumbs = b"".join(_chunk(b"IDAT", rows[at : at + 7]) for at in range(0, len(rows), 7))
    plain = read_plain_png(data[:33] + crumbs + data[-12:])
    assert plain is not None
    assert plain.tobytes() == image.tobytes()


@given(st.lists(IMAGES, min_size=2, max_size=6), st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_many_are_read_as_each_alone(images: list[np.ndarray], order: list[int]) -> None:
    """Also where images of one size stand among others: none sees a neighbour's rows."""
    some = [images[place % len(images)] for place in order]
    read = read_plain_pngs([encode(Image.fromarray(pixels), "PNG") for pixels in some], max_pixels=10**6)
    assert all(
        seen is not None and np.array_equal(as_array(seen), pixels) for seen, pixels in zip(read, some, strict=True)
    )


def test_more_than_are_read_at_once_keep_their_order() -> None:
    some = [np.full((28, 28), level, np.uint8) for level in range(200)]
    read = read_plain_pngs([encode(Image.fromarray(pixels), "PNG") for pixels in some], max_pixels=10**6)
    assert [seen.max() for seen in read if seen is not None] == list(range(200))


@pytest.mark.parametrize("filter_type", [*range(5), 5, 255])
def test_a_filter_that_does_not_exist_spoils_no_neighbour(filter_type: int) -> None:
    """Each filter in the first row, where there is no row above, and in the second."""
    line = bytes([filter_type, *range(100, 108)])
    data = encode(gradient(8, 2), "PNG")
    file = data[:33] + _chunk(b"IDAT", zlib.compress(2 * line)) + data[-12:]
    first, odd, last = read_plain_pngs([data, file, data], max_pixels=10**6)
    assert first is not None
    assert last is not None
    assert first.tobytes() == last.tobytes() == gradient(8, 2).tobytes()
    if filter_type > 4:
        assert odd is None
    else:
        assert odd is not None
        assert odd.tobytes() == pillow(file).tobytes()


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("rows", [0, 4, 9, 11, 10**5])
def test_too_few_rows_or_too_many_are_pillows(colour: bool, rows: int) -> None:
    data = encode(gradient(20, 10).convert("RGB" if colour else "L"), "PNG")
    line = bytes(1 + 20 * (3 if colour else 1))
    file = data[:33] + _chunk(b"IDAT", zlib.compress(rows * line)) + data[-12:]
    assert read_plain_png(file) is None
    assert read_plain_png(data) is not None


def test_a_window_that_zlib_does_not_know_is_pillows() -> None:
    data = encode(gradient(20, 10), "PNG")
    rows = data[data.index(b"IDAT") + 4 : -16]
    file = data[:33] + _chunk(b"IDAT", b"\x88\x1c" + rows[2:]) + data[-12:]
    assert read_plain_png(file) is None


def test_the_callers_limit_is_kept() -> None:
    data = encode(gradient(20, 10), "PNG")
    assert read_plain_pngs([data, data], max_pixels=199) == [None, None]
    assert all(seen is not None for seen in read_plain_pngs([data, data], max_pixels=200))


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


def test_large_images_are_pillows() -> None:
    assert read_plain_png(encode(gradient(254, 256), "PNG")) is not None
    assert read_plain_png(encode(gradient(255, 256), "PNG")) is None


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


def test_rows_that_do_not_inflate_are_pillows() -> None:
    """Behind good checksums: what is still taken shows what Pillow sees."""
    data = encode(gradient(9, 7), "PNG")
    rows = data[data.index(b"IDAT") + 4 : -16]
    seed = random.Random(1)
    files = [data]
    for _ in range(3000):
        mutated = bytearray(rows)
        mutated[seed.randrange(len(rows))] = seed.randrange(256)
        files.append(data[:33] + _chunk(b"IDAT", bytes(mutated)) + data[-12:])
    taken = [(plain, pillow(file)) for file in files if (plain := read_plain_png(file)) is not None]
    assert len(taken) > 1
    assert all(plain.tobytes() == seen.tobytes() for plain, seen in taken)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
