"""The attackers' files are what they claim to be; otherwise an attack would only show that broken files are refused."""

import io
import zlib

import pytest
from PIL import Image

from benchmarks.attack.kinds.image_files import (
    jpeg_with_scans,
    jpeg_with_segments,
    multipart,
    noise_png,
    png_with_profiles,
    png_with_texts,
    rle_bmp,
)

LIMIT = 16 * 2**20


@pytest.mark.parametrize(
    ("file", "size"),
    [
        (jpeg_with_segments(3), (28, 28)),
        (jpeg_with_scans(20, 40, 30), (40, 30)),
        (png_with_profiles(3), (28, 28)),
        (png_with_texts(3), (28, 28)),
        (rle_bmp(1000), (1000, 1)),
        (noise_png(50), (50, 50)),
    ],
    ids=["segments", "scans", "profiles", "texts", "bmp", "noise"],
)
def test_small_versions_are_valid_images(file: bytes, size: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(file)) as image:
        image.load()
        assert image.size == size


def test_full_versions_fit_into_a_request() -> None:
    assert 14e6 < len(jpeg_with_segments(500_000)) < LIMIT
    assert jpeg_with_scans(100, 80, 60).count(b"\xff\xda") == 100
    assert 15e6 < len(png_with_profiles(15_800)) < LIMIT
    assert LIMIT * 0.96 < len(noise_png(4320)) < LIMIT
    assert len(png_with_profiles(55)) < 64 * 1024
    assert len(rle_bmp()) < 1200


def test_chunks_inflate_to_a_mebibyte() -> None:
    file = png_with_profiles(1)
    start = file.index(b"iCCPp\0\0") + 7
    assert len(zlib.decompressobj().decompress(file[start:])) == 2**20 - 1


def test_form_has_all_files() -> None:
    body, content_type = multipart([b"one", b"two"])
    assert content_type.endswith("boundary=b")
    assert body.count(b"\r\n--b") + 1 == body.count(b"--b") == 3
