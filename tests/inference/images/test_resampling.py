"""JPEG images at a fraction of their size: what is decoded, and that it shows the same as the whole image."""

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base as ExifTag

from app.inference.errors import UnreadableImage
from app.inference.images.decoding import open_image
from app.inference.images.model_input import DecodedImage, Fit, InputSpec
from app.inference.images.resampling import jpeg_scale
from tests.inference.images.codecs.test_jpeg import END, MISSING_END, photograph
from tests.support import encode

FULL = InputSpec(mode="RGB", height=24, width=32, reduction="area")
SCALED = FULL.model_copy(update={"jpeg": "scaled"})


def decode(data: bytes, spec: InputSpec = SCALED) -> DecodedImage:
    return open_image(data, max_pixels=10**7).decode(spec)


def difference(data: bytes, spec: InputSpec = SCALED) -> float:
    """The largest difference between an image that was decoded at a fraction of its size and at its own, in levels."""
    full = decode(data, spec.model_copy(update={"jpeg": "full"}))
    scaled = decode(data, spec)
    assert scaled.warnings == full.warnings
    return float(np.abs(scaled.pixels.astype(np.float32) - full.pixels).max())


@pytest.mark.parametrize(
    ("size", "fit", "scale"),
    [
        ((31, 23), "stretch", 1),
        ((63, 48), "stretch", 1),
        ((64, 48), "stretch", 2),
        ((640, 48), "stretch", 2),
        ((128, 96), "stretch", 4),
        ((4000, 3000), "stretch", 8),
        ((640, 48), "crop", 2),
        ((640, 48), "pad", 8),
        ((640, 1), "pad", 1),
        ((1, 1), "stretch", 1),
    ],
)
def test_scale_of_the_discrete_cosine_transform_leaves_at_least_the_input(
    size: tuple[int, int], fit: Fit, scale: int
) -> None:
    assert jpeg_scale(*size, SCALED.model_copy(update={"fit": fit})) == scale
    assert jpeg_scale(*size, FULL.model_copy(update={"fit": fit})) == 1


def test_specification_without_the_field_decodes_jpeg_images_in_full() -> None:
    """Thresholds of older versions are based on such pixels."""
    photo = photograph(320, 240)
    data = encode(photo, "JPEG", quality=95)
    pixels = decode(data, FULL).pixels
    with Image.open(io.BytesIO(data)) as image:
        expected = image.resize((32, 24), Image.Resampling.BICUBIC, reducing_gap=1.0)
    assert np.array_equal(np.moveaxis(pixels, 0, -1), np.asarray(expected))
    assert not np.array_equal(pixels, decode(data).pixels)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=str
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_images_of_every_kind_show_the_same_at_a_fraction(mode: str, options: dict[str, object], fit: Fit) -> None:
    spec = SCALED.model_copy(update={"fit": fit})
    for size in [(350, 250), (257, 193), (64, 48), (40, 300)]:
        smooth = photograph(*size).resize((9, 7)).resize(size, Image.Resampling.BICUBIC).convert(mode)
        assert difference(encode(smooth, "JPEG", quality=95, **options), spec) <= 8


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_image_with_exif_orientation_keeps_its_place(orientation: int, fit: Fit) -> None:
    """The last column and row are incomplete blocks; to count them would move the image by up to a pixel."""
    across = np.linspace(0, 255, 257).round().astype(np.uint8)[None].repeat(193, axis=0)
    exif = Image.Exif()
    exif[ExifTag.Orientation] = orientation
    for ramp in (across, across.T):
        data = encode(Image.fromarray(np.ascontiguousarray(ramp)), "JPEG", quality=100, exif=exif)
        assert difference(data, SCALED.model_copy(update={"fit": fit})) <= 2


def test_jpeg_image_in_colour_for_a_grey_model() -> None:
    spec = SCALED.model_copy(update={"mode": "L"})
    data = encode(photograph(350, 250), "JPEG")
    assert decode(data, spec).warnings == (
        "resized from 350×250 to 32×24, which changed its proportions",
        "colour was converted to grey",
    )


@pytest.mark.parametrize("side", [64, 100, 200, 400])
def test_jpeg_image_at_a_fraction_is_incomplete_if_its_file_is(side: int) -> None:
    """At every scale, in every kind of file."""
    spec = InputSpec(mode="RGB", height=32, width=32, reduction="area", jpeg="scaled")
    kinds: list[dict[str, object]] = [{}, {"progressive": True}, {"restart_marker_rows": 1}]
    for options, mode in product(kinds, ("L", "RGB")):
        data = encode(photograph(side, side, mode), "JPEG", **options)
        first = data.index(b"\xff\xda") + 14
        for cut in np.random.default_rng(1).integers(first, first + (len(data) - first) * 95 // 100, 20):
            for end in (b"", END):
                with pytest.raises(UnreadableImage, match=r"incomplete|damaged"):
                    decode(data[:cut] + end, spec)
        assert decode(data[:-2], spec).warnings[0] == MISSING_END
