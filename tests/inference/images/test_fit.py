"""How images of other proportions than the input's are brought to its size: stretched, padded or cropped."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import Base as ExifTag

from app.inference.images.model_input import Fit, InputSpec
from tests.inference.images.test_decoding import GREY, as_tensor, decode
from tests.support import encode, gradient


@settings(
    max_examples=100,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    fit=st.sampled_from(["pad", "crop"]),
    to=st.tuples(st.integers(48, 96), st.integers(48, 96)),
    side=st.integers(48, 200),
    longer=st.floats(1, 2.5),
    upright=st.booleans(),
)
def test_pad_and_crop_keep_a_square_a_square(
    fit: Fit, to: tuple[int, int], side: int, longer: float, upright: bool
) -> None:
    size = (side, round(side * longer))
    spec = InputSpec(mode="L", height=to[0], width=to[1], fit=fit)
    height, width = _square_in(size if upright else size[::-1], spec)
    assert height == pytest.approx(width, abs=2)
    assert height > 8


def test_stretch_does_not() -> None:
    assert _square_in((60, 120), InputSpec(mode="L", height=64, width=64)) == (16, 32)


def test_padding_is_the_reflection_of_the_whole_image_in_the_middle() -> None:
    decoded = decode(encode(gradient(20, 10)), GREY.model_copy(update={"fit": "pad"}))
    whole = as_tensor(gradient(20, 10).resize((8, 4), Image.Resampling.BILINEAR))
    assert torch.equal(decoded.tensor[0, 2:6], whole)
    assert torch.equal(decoded.tensor[0, :2], whole[:2].flip(0))
    assert torch.equal(decoded.tensor[0, 6:], whole[2:].flip(0))
    assert decoded.warnings == ("resized from 20×10 to 8×8, padded to keep its proportions",)


def test_crop_is_the_middle() -> None:
    decoded = decode(encode(gradient(20, 10)), GREY.model_copy(update={"fit": "crop"}))
    middle = gradient(20, 10).resize((8, 8), Image.Resampling.BILINEAR, box=(5, 0, 15, 10))
    assert torch.equal(decoded.tensor[0], as_tensor(middle))
    assert decoded.warnings == ("resized from 20×10 to 8×8, cropped to keep its proportions",)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_area_reduction_returns_the_original_of_repeated_pixels(fit: Fit) -> None:
    spec = GREY.model_copy(update={"fit": fit, "reduction": "area"})
    original = gradient(8, 4) if fit == "pad" else gradient(14, 8)
    repeated = Image.fromarray(np.asarray(original).repeat(5, axis=0).repeat(5, axis=1))
    assert torch.equal(decode(encode(repeated), spec).tensor, decode(encode(original), spec).tensor)


@pytest.mark.parametrize(("width", "height", "left", "top"), [(11, 8, 1, 0), (8, 13, 0, 2)])
def test_crop_without_resampling_keeps_pixels(width: int, height: int, left: int, top: int) -> None:
    image = gradient(width, height)
    decoded = decode(encode(image), GREY.model_copy(update={"fit": "crop"}))
    assert torch.equal(decoded.tensor[0], as_tensor(image)[top : top + 8, left : left + 8])


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8), (13, 17)])
def test_inputs_that_are_not_square(fit: Fit, height: int, width: int) -> None:
    spec = InputSpec(mode="L", height=height, width=width, fit=fit)
    image = gradient(3 * width, 3 * height)
    same = decode(encode(image), spec.model_copy(update={"fit": "stretch"}))
    assert torch.equal(decode(encode(image), spec).tensor, same.tensor)  # the same proportions
    assert decode(encode(image), spec).warnings == same.warnings
    assert decode(encode(gradient(40, 40)), spec).tensor.shape == (1, height, width)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_all_colour_modes_and_depths_show_the_same(fit: Fit) -> None:
    grey = InputSpec(mode="L", height=8, width=12, fit=fit)
    colour = grey.model_copy(update={"mode": "RGB"})
    levels = gradient(20, 31)
    expected = decode(encode(levels), grey).tensor
    deep = np.asarray(levels).astype(np.uint16) * 257
    for image, image_format in (
        (levels.convert("RGB"), "PNG"),
        (levels.convert("RGBA"), "PNG"),
        (Image.fromarray(deep), "PNG"),
        (Image.fromarray((np.asarray(levels) / 255).astype(np.float32)), "TIFF"),
    ):
        data = encode(image, image_format)
        torch.testing.assert_close(decode(data, grey).tensor, expected, atol=1 / 255, rtol=0)
        torch.testing.assert_close(decode(data, colour).tensor, expected.expand(3, -1, -1), atol=1 / 255, rtol=0)


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_image_is_turned_upright_first(fit: Fit) -> None:
    spec = InputSpec(mode="L", height=16, width=8, fit=fit)
    upright = gradient(20, 10)
    exif = Image.Exif()
    exif[ExifTag.Orientation] = 6
    lying = encode(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert torch.equal(decode(lying, spec).tensor, decode(encode(upright), spec).tensor)


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 999), (999, 1), (3, 7)])
def test_extreme_proportions(fit: Fit, width: int, height: int) -> None:
    spec = InputSpec(mode="RGB", height=9, width=14, fit=fit)
    decoded = decode(encode(Image.new("L", (width, height), 51)), spec)
    assert decoded.tensor.shape == (3, 9, 14)
    assert sorted(set(decoded.tensor.flatten().tolist())) == pytest.approx([0.2])


def _square_in(size: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """Height and width of a white square after decoding; it has half the shorter side of its (width, height) image."""
    image = Image.new("L", size)
    side = min(size) // 2
    left, top = ((each - side) // 2 for each in size)
    image.paste(255, (left, top, left + side, top + side))
    white = decode(encode(image), spec).tensor[0] > 0.5
    middle = (spec.height // 2, spec.width // 2)
    return _run(white[:, middle[1]], middle[0]), _run(white[middle[0]], middle[1])


def _run(values: torch.Tensor, at: int) -> int:
    """The number of successive true values around a position; a reflection of them further out does not count."""
    black = [index for index, value in enumerate([False, *values.tolist(), False], start=-1) if not value]
    return min(index for index in black if index > at) - max(index for index in black if index < at) - 1
