"""Large PNG files: the fast decoder gives the pixels of Pillow, and leaves to it what it does not decode."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from PIL.ExifTags import Base as ExifTag

from app.inference.errors import UnreadableImage
from app.inference.images.codecs.png import read_pixels
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from tests.hostile import chunk
from tests.support import encode

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = chunk(b"IEND", b"")
COLOURS = {"L": (0, 1), "RGB": (2, 3), "RGBA": (6, 4)}
"""Pillow's modes → PNG's colour type, and channels."""


def png(width: int, height: int, mode: str, rows: bytes, *, before: bytes = b"", after: bytes = b"") -> bytes:
    """A file with these filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, COLOURS[mode][0], 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows, 1))
    return SIGNATURE + chunk(b"IHDR", header) + before + pixels + after + END


def random_rows(width: int, height: int, mode: str, filters: list[int], seed: int = 0) -> bytes:
    """Rows of random bytes with these filter types in turn."""
    content = np.random.default_rng(seed).integers(0, 256, (height, 1 + width * COLOURS[mode][1]), dtype=np.uint8)
    content[:, 0] = np.resize(filters, height)
    return content.tobytes()


def deflated(data: bytes) -> bytes:
    """The data of a file's chunks IDAT."""
    at, found = data.index(b"IDAT") - 4, b""
    while data[at + 4 : at + 8] == b"IDAT":
        end = at + 8 + int.from_bytes(data[at : at + 4])
        found += data[at + 8 : end]
        at = end + 4
    return found


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image)


def fast(data: bytes) -> np.ndarray | None:
    """As Pillow's array."""
    pixels = read_pixels(data)
    return pixels[..., 0] if pixels is not None and pixels.shape[-1] == 1 else pixels


def decoded(data: bytes, mode: str = "RGB") -> tuple[np.ndarray, tuple[str, ...]]:
    spec = InputSpec.model_validate({"mode": mode, "height": 300, "width": 400})
    image = open_image(data, max_pixels=10**6).decode(spec)
    return image.pixels, image.warnings


PHOTO = Image.effect_noise((400, 300), 40)
LARGE = {mode: encode(Image.merge("RGBA", [PHOTO] * 4).convert(mode), "PNG") for mode in COLOURS}


@settings(derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    mode=st.sampled_from(list(COLOURS)),
    width=st.integers(1, 300),
    height=st.integers(1, 80),
    filters=st.lists(st.integers(0, 4), min_size=1, max_size=7),
    seed=st.integers(0, 2**32),
)
def test_pixels_of_every_filter_are_those_of_pillow(
    mode: str, width: int, height: int, filters: list[int], seed: int
) -> None:
    data = png(width, height, mode, random_rows(width, height, mode, filters, seed))
    pixels = fast(data)
    assert pixels is not None
    assert np.array_equal(pixels, pillow(data))


@pytest.mark.parametrize("mode", COLOURS)
def test_files_of_encoders_are_read_fast(mode: str) -> None:
    """Rows of more than one stored block, in one chunk or several, with descriptions before them."""
    data = LARGE[mode]
    assert len(data) > 2**16
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "a photograph")
    with Image.open(io.BytesIO(data)) as image:
        described = encode(image, "PNG", pnginfo=texts, dpi=(300, 300), icc_profile=b"profile" * 40)
    rows = deflated(data)
    pieces = b"".join(chunk(b"IDAT", rows[at : at + 8192]) for at in range(0, len(rows), 8192))
    for file in (data, described, data[:33] + pieces + END, data + b"trailing bytes"):
        pixels = fast(file)
        assert pixels is not None
        assert np.array_equal(pixels, pillow(file))


@pytest.mark.parametrize(("width", "height", "colour"), [(8, 8, 2), (80, 8, 2), (8, 80, 2), (80, 80, 6), (80, 80, 0)])
def test_file_with_a_second_header_is_not_read_fast(width: int, height: int, colour: int) -> None:
    """The pixels do not fill the image of the second header: the rest would be memory of earlier images."""
    second = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    rows = random_rows(40, 40, "RGB", [0])
    with pytest.raises(UnreadableImage):
        decoded(png(40, 40, "RGB", rows, before=second))


@pytest.mark.parametrize("mode", COLOURS)
def test_image_is_decoded_as_by_pillow(mode: str) -> None:
    pixels, warnings = decoded(LARGE[mode], "RGB")
    with Image.open(io.BytesIO(LARGE[mode])) as image:
        flat = Image.new("RGB", image.size)
        flat.paste(image.convert("RGB"), mask=image.convert("RGBA").getchannel("A"))
    assert np.array_equal(np.moveaxis(pixels, 0, -1), np.asarray(flat))
    assert warnings == (("transparency was flattened onto black",) if mode == "RGBA" else ())


@pytest.mark.parametrize("at_end", [False, True])
def test_exif_orientation_before_and_after_the_pixels(at_end: bool) -> None:
    exif = Image.Exif()
    exif[ExifTag.Orientation] = 3
    chunk_of_it = chunk(b"eXIf", exif.tobytes()[6:])
    data = LARGE["L"]
    file = data[:-12] + chunk_of_it + END if at_end else data[:33] + chunk_of_it + data[33:]
    assert (fast(file) is None) is at_end
    pixels, warnings = decoded(file, "L")
    assert np.array_equal(pixels[0], np.rot90(pillow(data), 2))
    assert warnings == ("turned upright according to the EXIF orientation",)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_transparent_colour_is_flattened(mode: str) -> None:
    rows = random_rows(400, 300, mode, [0])
    shade = [rows[1 + channel] for channel in range(COLOURS[mode][1])]
    data = png(400, 300, mode, rows, before=chunk(b"tRNS", bytes(byte for each in shade for byte in (0, each))))
    assert fast(data) is not None
    pixels, warnings = decoded(data)
    assert pixels[:, 0, 0].max() == 0
    assert warnings == ("transparency was flattened onto black",)


def test_other_kinds_are_left_to_pillow() -> None:
    photo = PHOTO.convert("RGB")
    animated = encode(photo, "PNG", save_all=True, append_images=[photo.transpose(Image.Transpose.ROTATE_180)])
    interlaced = bytearray(LARGE["L"])
    interlaced[28] = 1
    interlaced[29:33] = struct.pack(">I", zlib.crc32(interlaced[12:29]))
    for other in (*(encode(photo.convert(mode), "PNG") for mode in ("1", "P", "LA", "I;16")), bytes(interlaced)):
        assert fast(other) is None
    pixels, warnings = decoded(animated)
    assert np.array_equal(np.moveaxis(pixels, 0, -1), np.asarray(photo))
    assert warnings == ("only the first of several frames was used",)


@pytest.mark.parametrize("mode", COLOURS)
def test_damaged_and_truncated_files_are_refused_as_by_pillow(mode: str) -> None:
    data = LARGE[mode]
    damaged = bytearray(data)
    damaged[data.index(b"IDAT") + 5000] ^= 1
    good = deflated(data)
    rows = zlib.decompress(good)
    files = {
        "a checksum of a chunk": bytes(damaged),
        "rows": png(400, 300, mode, rows[:-1000]),
        "a filter type": png(400, 300, mode, b"\5" + rows[1:]),
        "half of the data": data[:33] + chunk(b"IDAT", good[: len(good) // 2]) + END,
    }
    for name, file in files.items():
        assert fast(file) is None, name
        with pytest.raises(UnreadableImage):
            decoded(file)
    for cut in range(0, len(data), len(data) // 50):
        assert fast(data[:cut]) is None
        with pytest.raises(UnreadableImage):
            decoded(data[:cut])


def test_rows_beyond_the_image_are_not_inflated() -> None:
    """Thirty megabytes in thirty kilobytes, of which the image shows 120,000 bytes."""
    compressor = zlib.compressobj(9)
    rows = compressor.compress(random_rows(400, 300, "L", [0]))
    rows += b"".join(compressor.compress(bytes(2**20)) for _ in range(30)) + compressor.flush()
    bomb = LARGE["L"][:33] + chunk(b"IDAT", rows) + END
    began = time.process_time()
    pixels = fast(bomb)
    taken = time.process_time() - began
    assert pixels is not None
    assert np.array_equal(pixels, pillow(bomb))
    began = time.process_time()
    zlib.decompress(rows)
    assert taken < (time.process_time() - began) / 5


def test_descriptions_do_not_reach_the_decoder() -> None:
    """It would inflate them."""
    profile = chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(10**6)))
    unknown = chunk(b"ABCD", b"a critical chunk that no decoder knows")
    for before in (profile, unknown, chunk(b"iCCP", b"\0"), chunk(b"pHYs", b""), 5 * chunk(b"gAMA", bytes(4))):
        file = LARGE["L"][:33] + before + LARGE["L"][33:]
        pixels = fast(file)
        assert pixels is not None
        assert np.array_equal(pixels, pillow(LARGE["L"]))


def test_damaged_data_with_valid_checksums_of_chunks() -> None:
    """A decoder may notice less than Pillow, by the checksum of the rows, but never shows something else."""
    rows = zlib.compress(random_rows(40, 30, "RGB", [4, 3, 1]), 9)
    random = np.random.default_rng(0)
    same = 0
    for _ in range(600):
        changed = bytearray(rows)
        changed[random.integers(len(rows) - 4)] = random.integers(256)
        file = SIGNATURE + LARGE["RGB"][8:16] + struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0)
        file += struct.pack(">I", zlib.crc32(file[12:])) + chunk(b"IDAT", bytes(changed)) + END
        pixels = fast(file)
        stream = zlib.decompressobj(-15)
        try:
            inflated = stream.decompress(bytes(changed[2:-4]))
        except zlib.error:
            inflated = b""
        if pixels is not None and len(inflated) == 30 * 121 and changed[:2] == rows[:2]:
            same += 1
            assert np.array_equal(pixels, pillow(png(40, 30, "RGB", inflated)))
    assert same > 300
