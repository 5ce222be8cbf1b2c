"""Limits on the parts of image files: hostile files are rejected before parsing, those of cameras and editors pass."""

import struct
import time
import zlib

import pytest
from PIL import Image

from app.inference.errors import UnreadableImage
from app.inference.images.codecs import metadata
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from tests import hostile, valid_images
from tests.support import encode, gradient

SPEC = InputSpec(mode="L", height=8, width=8)
CORPUS = hostile.corpus()


def decode(data: bytes) -> None:
    open_image(data, max_pixels=10**6).decode(SPEC)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("jpeg-exif-segments", "segments of EXIF data"),
        ("jpeg-comments", "segments of metadata"),
        ("jpeg-fill-bytes", "bytes between its segments"),
        ("jpeg-segments-between-scans", "segments"),
        ("png-profiles", "bytes of compressed profiles and texts"),
        ("png-texts-that-are-no-text", "bytes of compressed profiles and texts"),
        ("png-text-bombs", "bytes of compressed profiles and texts"),
        ("png-many-chunks", "chunks of metadata"),
        ("png-many-texts", "chunks of metadata"),
        ("gif-many-comments", "blocks of metadata"),
        ("gif-spaces", "bytes between its blocks"),
        ("webp-empty-chunks", "chunks"),
        ("avif-empty-boxes", "boxes"),
        ("avif-extents", "pieces in one part"),
        ("jp2-empty-boxes", "boxes"),
        ("tiff-more-tags", "tags"),
        ("tiff-strips", "strips"),
    ],
)
def test_too_many_parts_are_named_at_once(name: str, parts: str) -> None:
    began = time.process_time()
    with pytest.raises(UnreadableImage, match=rf"has more than [\d,]+ {parts}"):
        decode(CORPUS[name])
    assert time.process_time() - began < 0.5


def test_megabytes_of_segments_take_no_time_per_segment_before() -> None:
    """200,000 of them, 6.6 MB, took minutes: a parser joined all of them for each."""
    data = hostile.jpeg_segments(200_000, b"Exif\0\0" + bytes(23))
    began = time.process_time()
    with pytest.raises(UnreadableImage, match="more than 64 segments of EXIF data"):
        decode(data)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", valid_images.seeds())
def test_valid_images_pass(name: str) -> None:
    metadata.check(valid_images.seeds()[name])


def test_limits_are_exact() -> None:
    exif = b"Exif\0\0"
    decode(hostile.jpeg_segments(metadata.MAX_EXIF_SEGMENTS, exif))
    with pytest.raises(UnreadableImage):
        decode(hostile.jpeg_segments(metadata.MAX_EXIF_SEGMENTS + 1, exif))
    text = hostile.chunk(b"tEXt", b"k\0v")
    decode(hostile.png(8, 8, *[text] * (metadata.MAX_PARTS - 1)))  # and the header
    with pytest.raises(UnreadableImage):
        decode(hostile.png(8, 8, *[text] * metadata.MAX_PARTS))


def test_photographs_with_much_metadata_pass() -> None:
    """EXIF data with a thumbnail, a profile of 900 kB, 70 segments of extended XMP, a preview and makers' segments."""
    photo = encode(gradient(64, 64), "JPEG")
    exif = Image.Exif()
    exif[274], exif[271] = 6, "a camera"
    base = encode(gradient(64, 64), "JPEG", exif=exif.tobytes() + photo, icc_profile=bytes(range(256)) * 3500)
    xmp = b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)
    more = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
        for marker, content in [(0xE1, xmp)] * 70 + [(0xE4, bytes(60_000))] * 30 + [(0xED, b"Photoshop 3.0\0")]
    )
    data = base[:2] + more + base[2:]
    assert len(data) > 7_000_000
    decoded = open_image(data, max_pixels=10**6).decode(SPEC)
    assert "turned upright according to the EXIF orientation" in decoded.warnings


def test_pictures_with_previews_pass() -> None:
    decode(encode(gradient(64, 64), "MPO", save_all=True, append_images=[gradient(32, 32)] * 3))


def test_pixels_in_thousands_of_chunks_pass() -> None:
    data = hostile.png_of_pieces(200, 200, 8)
    assert data.count(b"IDAT") > 4000
    decode(data)


def test_edited_png_with_profile_and_texts_passes() -> None:
    chunks = [hostile.chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(range(256)) * 2500))]
    chunks += [hostile.chunk(b"tEXt", b"Software\0an editor"), hostile.chunk(b"pHYs", bytes(9))] * 20
    chunks += [hostile.chunk(b"zTXt", b"Raw profile\0\0" + zlib.compress(bytes(100_000)))] * 30
    chunks += [hostile.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x/>" * 50_000)]
    decode(hostile.png(8, 8, *chunks))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000"])
def test_cut_files_are_left_to_their_parsers(file_format: str) -> None:
    data = encode(gradient(16, 12), file_format)
    for end in range(len(data)):
        metadata.check(data[:end])
