"""Whatever the bytes: a tensor or a refusal, soon and cheaply. Each image here has once done harm or might."""

import os
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from app.inference.errors import TooManyPixels, UnreadableImage
from app.inference.images.decoding import open_image
from app.inference.images.model_input import DecodedImage, InputSpec
from tests import hostile
from tests.support import encode, gradient

SPECS = (InputSpec(mode="L", height=8, width=8), InputSpec(mode="RGB", height=12, width=16))
MAX_PIXELS = 10**6
SEEDS = hostile.seeds()
CORPUS = hostile.corpus()

# Pillow warns of what is odd about a file; that is no reason to refuse it, and the service logs it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.no_cover,  # thousands of images: other tests count the lines
]


def look(data: bytes, spec: InputSpec = SPECS[0]) -> DecodedImage | None:
    """The image, or None for one that was properly refused."""
    try:
        decoded = open_image(data, max_pixels=MAX_PIXELS).decode(spec)
    except (UnreadableImage, TooManyPixels) as refusal:
        text = str(refusal)
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
def test_valid_images_are_read(name: str) -> None:
    for spec in SPECS:
        decoded = look(SEEDS[name], spec)
        assert decoded is not None
        assert decoded.tensor.max() > 0


@settings(max_examples=1500, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile.damaged(list(SEEDS.values())))
def test_damaged_images_are_read_or_refused(data: bytes) -> None:
    began = time.perf_counter()
    for spec in SPECS:
        look(data, spec)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("name", CORPUS)
def test_hostile_files_cost_little(name: str) -> None:
    data = CORPUS[name]
    process = os.getpid()
    hostile.forget_peak(process)
    before, began = hostile.resident_bytes(process), time.perf_counter()
    look(data)
    assert time.perf_counter() - began < 3
    assert hostile.peak_bytes(process) - before < 100 * 2**20


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("png-bomb", TooManyPixels),
        ("gif-huge-screen", TooManyPixels),
        ("bmp-huge", TooManyPixels),
        ("jpeg-huge", TooManyPixels),
        ("tiff-huge", TooManyPixels),
        ("tiff-tile-bomb", TooManyPixels),
        ("webp-huge-canvas", TooManyPixels),
        ("jpeg-scans", UnreadableImage),
        ("png-profile-bomb", UnreadableImage),
        ("png-text-bombs", UnreadableImage),
        ("png-itxt-bomb", UnreadableImage),
        ("tiff-nan", UnreadableImage),
    ],
)
def test_bombs_are_refused(name: str, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        open_image(CORPUS[name], max_pixels=MAX_PIXELS).decode(SPECS[0])


@pytest.mark.parametrize(
    "name",
    [
        "png-65535x1", "png-1x65535", "png-frames", "png-thousands-of-frames", "png-garbage-exif", "png-exif-loop",
        "png-garbage-profile", "png-trailing-garbage", "png-is-also-zip", "jpeg-exif-loop", "jpeg-garbage-exif",
        "jpeg-garbage-profile", "jpeg-cmyk", "jpeg-ycck", "jpeg-then-jpeg", "gif-comments", "gif-thousands-of-frames",
        "tiff-loop", "tiff-many-directories", "tiff-many-strips", "tiff-huge-floats", "webp-frames",
    ],
)  # fmt: skip
def test_odd_files_that_can_be_seen_are_read(name: str) -> None:
    assert look(CORPUS[name]) is not None


class TestScans:
    def test_the_limit_is_exact(self) -> None:
        base = len_of_scans(hostile.many_scans(64, 64, 0))
        assert look(hostile.many_scans(64, 64, 100 - base)) is not None
        with pytest.raises(UnreadableImage, match="more than 100 scans"):
            open_image(hostile.many_scans(64, 64, 101 - base), max_pixels=MAX_PIXELS)

    def test_those_of_a_thumbnail_or_behind_the_end_do_not_count(self) -> None:
        scans = hostile.many_scans(64, 64, 300)
        inside = encode(gradient(), "JPEG", exif=b"Exif\0\0" + scans)
        for data in (inside, encode(gradient(), "JPEG") + scans):
            assert look(data) is not None

    def test_they_cannot_be_hidden(self) -> None:
        """A marker without a length, as FF 01 is, must not be taken for one with."""
        scans = hostile.many_scans(64, 64, 300)
        end = scans.rindex(b"\xff\xd9")
        first = scans.rindex(b"\xff\xc4")  # the table before our scans
        for hidden in (b"\xff\x01\xff\xff", b"\xff" * 5000 + b"\x00"):
            with pytest.raises(UnreadableImage, match="more than 100 scans"):
                open_image(scans[:first] + hidden + scans[first:end] + b"\xff\xd9", max_pixels=MAX_PIXELS)

    def test_counting_them_is_quick(self) -> None:
        base = encode(gradient(), "JPEG")
        began = time.perf_counter()
        look(base[:-2] + b"\xff" * 4_000_000 + b"\0" * 4_000_000 + b"\xff\xd9")
        assert time.perf_counter() - began < 2


def len_of_scans(jpeg: bytes) -> int:
    return jpeg.count(b"\xff\xda")


def test_large_files_of_crumbs_are_given_up() -> None:
    """Under two million bytes there is no need; above, Pillow's reads are counted."""
    image = encode(gradient(), "JPEG")
    with pytest.raises(UnreadableImage):
        open_image(b"\xff\xd8" + b"\xff" * 3_000_000 + image[3:], max_pixels=MAX_PIXELS)
    large = encode(gradient()) + bytes(3_000_000)
    assert look(large) is not None
