"""The fast PNG reader: it agrees with Pillow on plain files and returns None for all others."""

import io
import random
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, PngImagePlugin

from app.inference.images.codecs.plain_png import read_plain_pngs
from tests.hostile import chunk
from tests.support import encode, gradient

_SIDES = st.integers(1, 40)
IMAGES = st.tuples(_SIDES, _SIDES, st.sampled_from([(), (3,)])).flatmap(
    lambda shape: arrays(np.uint8, (*shape[:2], *shape[2]))
)


def read_plain_png(data: bytes) -> np.ndarray | None:
    (pixels,) = read_plain_pngs([data], max_pixels=10**6)
    return pixels


def as_array(levels: np.ndarray) -> np.ndarray:
    """(C, H, W) in Pillow's layout: (H, W) or (H, W, 3)."""
    return levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1)


def pillow(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=["PNG"])
    image.load()
    return image


@given(IMAGES)
def test_pixels_are_those_of_pillow(pixels: np.ndarray) -> None:
    data = encode(Image.fromarray(pixels), "PNG")
    plain = read_plain_png(data)
    assert plain is not None
    assert np.array_equal(as_array(plain), np.asarray(pillow(data)))
    assert np.array_equal(as_array(plain), pixels)


def test_pixel_data_in_several_chunks() -> None:
    image = gradient(20, 10)
    data = encode(image, "PNG")
    rows = data[data.index(b"IDAT") + 4 : -16]
    chunks = b"".join(chunk(b"IDAT", rows[at : at + 7]) for at in range(0, len(rows), 7))
    plain = read_plain_png(data[:33] + chunks + data[-12:])
    assert plain is not None
    assert plain.tobytes() == image.tobytes()


@given(st.lists(IMAGES, min_size=2, max_size=6), st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_batches_of_mixed_sizes(images: list[np.ndarray], order: list[int]) -> None:
    """Filters refer to the row above, but must not refer to rows of another image."""
    batch = [images[place % len(images)] for place in order]
    read = read_plain_pngs([encode(Image.fromarray(pixels), "PNG") for pixels in batch], max_pixels=10**6)
    assert all(
        plain is not None and np.array_equal(as_array(plain), pixels) for plain, pixels in zip(read, batch, strict=True)
    )


def test_large_batches_keep_their_order() -> None:
    batch = [np.full((28, 28), level, np.uint8) for level in range(200)]
    read = read_plain_pngs([encode(Image.fromarray(pixels), "PNG") for pixels in batch], max_pixels=10**6)
    assert [plain.max() for plain in read if plain is not None] == list(range(200))


@pytest.mark.parametrize("filter_type", [*range(5), 5, 255])
def test_valid_and_invalid_filter_types(filter_type: int) -> None:
    """Each filter in the first row, which has no row above, and in the second. Other files are not affected."""
    line = bytes([filter_type, *range(100, 108)])
    data = encode(gradient(8, 2), "PNG")
    file = data[:33] + chunk(b"IDAT", zlib.compress(2 * line)) + data[-12:]
    first, middle, last = read_plain_pngs([data, file, data], max_pixels=10**6)
    assert first is not None
    assert last is not None
    assert first.tobytes() == last.tobytes() == gradient(8, 2).tobytes()
    if filter_type > 4:
        assert middle is None
    else:
        assert middle is not None
        assert middle.tobytes() == pillow(file).tobytes()


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("rows", [0, 4, 9, 11, 10**5])
def test_wrong_number_of_rows_is_left_to_pillow(colour: bool, rows: int) -> None:
    data = encode(gradient(20, 10).convert("RGB" if colour else "L"), "PNG")
    line = bytes(1 + 20 * (3 if colour else 1))
    file = data[:33] + chunk(b"IDAT", zlib.compress(rows * line)) + data[-12:]
    assert read_plain_png(file) is None
    assert read_plain_png(data) is not None


def test_invalid_zlib_window_is_left_to_pillow() -> None:
    data = encode(gradient(20, 10), "PNG")
    rows = data[data.index(b"IDAT") + 4 : -16]
    file = data[:33] + chunk(b"IDAT", b"\x88\x1c" + rows[2:]) + data[-12:]
    assert read_plain_png(file) is None


def test_pixel_limit_is_exact() -> None:
    data = encode(gradient(20, 10), "PNG")
    assert read_plain_pngs([data, data], max_pixels=199) == [None, None]
    assert all(plain is not None for plain in read_plain_pngs([data, data], max_pixels=200))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "I;16"])
def test_other_modes_are_left_to_pillow(mode: str) -> None:
    assert read_plain_png(encode(gradient(8, 8).convert(mode), "PNG")) is None


@pytest.mark.parametrize("image_format", ["JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_are_left_to_pillow(image_format: str) -> None:
    assert read_plain_png(encode(gradient(8, 8), image_format)) is None


def test_optional_chunks_are_left_to_pillow() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "an optional chunk")
    for extra in ({"pnginfo": texts}, {"transparency": 7}, {"dpi": (72, 72)}, {"exif": b"Exif\0\0"}):
        buffer = io.BytesIO()
        gradient(8, 8).save(buffer, "PNG", **extra)
        assert read_plain_png(buffer.getvalue()) is None, extra


def test_large_images_are_left_to_pillow() -> None:
    assert read_plain_png(encode(gradient(254, 256), "PNG")) is not None
    assert read_plain_png(encode(gradient(255, 256), "PNG")) is None


def test_damaged_files_are_left_to_pillow() -> None:
    data = encode(gradient(9, 7), "PNG")
    for at in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        assert read_plain_png(bytes(damaged)) is None
    for length in range(len(data)):
        assert read_plain_png(data[:length]) is None


def test_damaged_pixel_data_with_valid_checksums() -> None:
    """If a file is decoded, the pixels are those of Pillow."""
    data = encode(gradient(9, 7), "PNG")
    rows = data[data.index(b"IDAT") + 4 : -16]
    seed = random.Random(1)
    files = [data]
    for _ in range(3000):
        mutated = bytearray(rows)
        mutated[seed.randrange(len(rows))] = seed.randrange(256)
        files.append(data[:33] + chunk(b"IDAT", bytes(mutated)) + data[-12:])
    decoded = [(plain, pillow(file)) for file in files if (plain := read_plain_png(file)) is not None]
    assert len(decoded) > 1
    assert all(plain.tobytes() == expected.tobytes() for plain, expected in decoded)
