"""Damaged and hostile files: each is decoded or rejected with the right error, with little time and memory."""

import os
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from app.inference.errors import TooManyPixels, UnreadableImage
from app.inference.images.decoding import open_image
from app.inference.images.model_input import DecodedImage, InputSpec
from tests import damage, hostile, process_memory, valid_images
from tests.support import encode, gradient

SPECS = (
    InputSpec(mode="L", height=8, width=8),
    InputSpec(mode="RGB", height=12, width=16, fit="pad"),
    InputSpec(mode="RGB", height=16, width=8, fit="crop"),
)
MAX_PIXELS = 10**6
SEEDS = valid_images.seeds()
CORPUS = hostile.corpus()

# Pillow warns of unusual files; the service logs these warnings and decodes the files.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.no_cover,  # thousands of images; other tests cover the lines
]


def decode_or_reject(data: bytes, spec: InputSpec = SPECS[0]) -> DecodedImage | None:
    """Decodes a file and checks the result or the error; None if it was rejected."""
    try:
        decoded = open_image(data, max_pixels=MAX_PIXELS).decode(spec)
    except (UnreadableImage, TooManyPixels) as error:
        text = str(error)
        assert text.isprintable()
        assert 0 < len(text) < 400
        assert " at 0x" not in text
        return None
    tensor = decoded.tensor
    assert tensor.shape == spec.shape
    assert tensor.dtype == torch.float32
    assert tensor.isfinite().all()
    assert 0 <= tensor.min() <= tensor.max() <= 1
    assert all(warning.isprintable() for warning in decoded.warnings)
    return decoded


@pytest.mark.parametrize("name", SEEDS)
def test_valid_images_are_decoded(name: str) -> None:
    for spec in SPECS:
        decoded = decode_or_reject(SEEDS[name], spec)
        assert decoded is not None
        assert decoded.tensor.max() > 0


@settings(max_examples=1500, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(damage.damaged(list(SEEDS.values())))
def test_damaged_images_are_decoded_or_rejected(data: bytes) -> None:
    began = time.process_time()
    for spec in SPECS:
        decode_or_reject(data, spec)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("name", CORPUS)
def test_hostile_files_take_little_time_and_memory(name: str) -> None:
    data = CORPUS[name]
    process = os.getpid()
    process_memory.forget_peak(process)
    before, began = process_memory.resident_bytes(process), time.process_time()
    decode_or_reject(data)
    assert time.process_time() - began < 3
    assert process_memory.peak_bytes(process) - before < 100 * 2**20


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("png-bomb", TooManyPixels),
        ("gif-huge-screen", TooManyPixels),
        ("bmp-huge", TooManyPixels),
        ("jpeg-huge", TooManyPixels),
        ("tiff-huge", TooManyPixels),
        ("tiff-tile-bomb", TooManyPixels),
        ("webp-huge-canvas", TooManyPixels),
        ("avif-large-frame", TooManyPixels),
        ("avif-thousands-of-frames", UnreadableImage),
        ("jp2-huge", TooManyPixels),
        ("j2k-huge", TooManyPixels),
        ("j2k-one-pixel-tiles", UnreadableImage),
        ("j2k-one-pixel-precincts", UnreadableImage),
        ("j2k-small-blocks", UnreadableImage),
        ("jpeg-scans", UnreadableImage),
        ("png-profile-bomb", UnreadableImage),
        ("png-text-bombs", UnreadableImage),
        ("png-itxt-bomb", UnreadableImage),
        ("tiff-nan", UnreadableImage),
    ],
)
def test_bombs_are_rejected(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_image(CORPUS[name], max_pixels=MAX_PIXELS).decode(SPECS[0])


@pytest.mark.parametrize(
    "name",
    [
        "png-65535x1", "png-1x65535", "png-frames", "png-thousands-of-frames", "png-garbage-exif", "png-exif-loop",
        "png-garbage-profile", "png-trailing-garbage", "png-is-also-zip", "jpeg-exif-loop", "jpeg-garbage-exif",
        "jpeg-garbage-profile", "jpeg-cmyk", "jpeg-ycck", "jpeg-then-jpeg", "gif-comments", "gif-thousands-of-frames",
        "tiff-loop", "tiff-many-directories", "tiff-many-strips", "tiff-huge-floats", "webp-frames",
        "avif-many-boxes",
    ],
)  # fmt: skip
def test_unusual_but_valid_files_are_decoded(name: str) -> None:
    assert decode_or_reject(CORPUS[name]) is not None


class TestScans:
    def test_limit_is_exact(self) -> None:
        base = hostile.many_scans(64, 64, 0).count(b"\xff\xda")
        assert decode_or_reject(hostile.many_scans(64, 64, 100 - base)) is not None
        with pytest.raises(UnreadableImage, match="more than 100 scans"):
            open_image(hostile.many_scans(64, 64, 101 - base), max_pixels=MAX_PIXELS)

    def test_scans_of_a_thumbnail_or_after_the_end_are_not_counted(self) -> None:
        scans = hostile.many_scans(64, 64, 300)
        inside = encode(gradient(), "JPEG", exif=b"Exif\0\0" + scans)
        for data in (inside, encode(gradient(), "JPEG") + scans):
            assert decode_or_reject(data) is not None

    def test_scans_cannot_be_hidden(self) -> None:
        """Markers without a length, such as FF 01, must not be parsed as segments."""
        scans = hostile.many_scans(64, 64, 300)
        end = scans.rindex(b"\xff\xd9")
        first = scans.rindex(b"\xff\xc4")  # the Huffman table before the additional scans
        for hidden in (b"\xff\x01\xff\xff", b"\xff" * 5000 + b"\x00"):
            with pytest.raises(UnreadableImage, match="more than 100 scans"):
                open_image(scans[:first] + hidden + scans[first:end] + b"\xff\xd9", max_pixels=MAX_PIXELS)

    def test_counting_is_fast(self) -> None:
        base = encode(gradient(), "JPEG")
        began = time.process_time()
        decode_or_reject(base[:-2] + b"\xff" * 4_000_000 + b"\0" * 4_000_000 + b"\xff\xd9")
        assert time.process_time() - began < 2


def test_large_files_of_tiny_pieces_are_rejected() -> None:
    image = encode(gradient(), "JPEG")
    with pytest.raises(UnreadableImage):
        open_image(b"\xff\xd8" + b"\xff" * 3_000_000 + image[3:], max_pixels=MAX_PIXELS)
    large = encode(gradient()) + bytes(3_000_000)
    assert decode_or_reject(large) is not None
