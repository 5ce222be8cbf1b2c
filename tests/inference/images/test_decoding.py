"""Decoding: every format, colour mode and bit depth becomes the right tensor, and invalid files are rejected."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ExifTags import Base as ExifTag

from app.inference.errors import TooManyPixels, UnreadableImage
from app.inference.images.decoding import open_image
from app.inference.images.model_input import DecodedImage, InputSpec
from tests import hostile
from tests.support import encode, gradient

GREY = InputSpec(mode="L", height=8, width=8)
COLOUR = InputSpec(mode="RGB", height=8, width=8)
AREA = InputSpec(mode="L", height=8, width=8, reduction="area")
LIMIT = 10**6


def decode(data: bytes, spec: InputSpec = GREY) -> DecodedImage:
    return open_image(data, max_pixels=LIMIT).decode(spec)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / np.float32(255))


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000"])
def test_lossless_formats_give_exact_pixels(image_format: str) -> None:
    image = gradient()
    decoded = decode(encode(image, image_format, **({"lossless": True} if image_format == "WEBP" else {})))
    assert decoded.tensor.dtype == torch.float32
    assert torch.equal(decoded.tensor, as_tensor(image)[None])
    assert decoded.warnings == ()


def test_jpeg_gives_approximate_pixels() -> None:
    decoded = decode(encode(Image.new("L", (8, 8), 100), "JPEG", quality=95))
    torch.testing.assert_close(decoded.tensor, torch.full((1, 8, 8), 100 / 255), atol=0.01, rtol=0)


def test_grey_image_for_a_colour_model() -> None:
    decoded = decode(encode(gradient()), COLOUR)
    assert torch.equal(decoded.tensor, as_tensor(gradient()).expand(3, 8, 8))
    assert decoded.tensor.is_contiguous()
    decoded.tensor.mul_(1)  # raises if the memory is read-only


def test_colour_image_for_a_colour_and_a_grey_model() -> None:
    data = encode(Image.new("RGB", (8, 8), (255, 0, 51)))
    assert decode(data, COLOUR).tensor[:, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    decoded = decode(data)
    assert sorted(set(decoded.tensor.flatten().tolist())) == pytest.approx(
        [(0.299 * 255 + 0.114 * 51) / 255], abs=1 / 255
    )
    assert decoded.warnings == ("colour was converted to grey",)


def test_grey_image_stored_as_colour_has_no_warning() -> None:
    decoded = decode(encode(gradient().convert("RGB")))
    assert torch.equal(decoded.tensor, as_tensor(gradient())[None])
    assert decoded.warnings == ()


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I", "F"]
)
@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_every_colour_mode_is_decoded(mode: str, spec: InputSpec) -> None:
    if mode == "PA":
        image = gradient().convert("P").convert("PA")
    elif mode == "LAB":
        image = Image.new("LAB", (8, 8), (200, 128, 128))
    elif mode == "F":
        image = Image.fromarray(np.full((8, 8), 0.5, np.float32))
    else:
        image = (
            gradient().convert("RGB").convert(mode) if mode in {"CMYK", "YCbCr", "HSV"} else gradient().convert(mode)
        )
    image_format = {"HSV": None, "PA": None}.get(mode, "TIFF")
    if image_format is None:  # no file format supports this mode
        from app.inference.images.decoding import ImageFile

        decoded = ImageFile(image, image.width * image.height).decode(spec)
    else:
        decoded = decode(encode(image, image_format), spec)
    assert decoded.tensor.shape == spec.shape
    assert decoded.tensor.isfinite().all()
    assert 0 <= decoded.tensor.min() <= decoded.tensor.max() <= 1
    assert decoded.tensor.max() > 0


class TestDepth:
    def test_16_bits_are_scaled_not_clipped(self) -> None:
        values = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
        for image_format in ("PNG", "TIFF"):
            decoded = decode(encode(Image.fromarray(values), image_format))
            torch.testing.assert_close(decoded.tensor[0], torch.from_numpy((values / 65535).astype(np.float32)))

    def test_16_bit_images_are_resized_like_8_bit_images(self) -> None:
        values = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint16)
        deep = decode(encode(Image.fromarray(values * 257)))
        shallow = decode(encode(Image.fromarray(values.astype(np.uint8))))
        torch.testing.assert_close(deep.tensor, shallow.tensor, atol=1 / 255, rtol=0)

    def test_16_bit_colour_keeps_its_brightness(self) -> None:
        rows = b"".join(b"\0" + struct.pack(">HHH", 0x8000, 0xFFFF, 0x4000) * 8 for _ in range(8))
        data = hostile.png(8, 8, depth=16, colour=2, rows=rows)
        assert decode(data, COLOUR).tensor[:, 3, 3].tolist() == pytest.approx([0.5, 1, 0.25], abs=0.01)

    def test_32_bits_are_scaled_by_the_range_of_their_type(self) -> None:
        data = _tiff(8, 8, bits=32, photometric=1, pixels=struct.pack("<I", 2**31 - 1) * 64)
        assert sorted(set(decode(data).tensor.flatten().tolist())) == pytest.approx([0.5])

    @pytest.mark.parametrize(("bits", "white_is_zero"), [(12, False), (16, False), (16, True)])
    def test_tiff_depth_and_polarity_are_taken_from_the_tags(self, bits: int, white_is_zero: bool) -> None:
        level = 3 * 2 ** (bits - 2)  # three quarters
        row_of_bits = int(f"{level:0{bits}b}" * 8, 2)
        row = row_of_bits.to_bytes(bits, "big") if bits == 12 else struct.pack("<H", level) * 8
        data = _tiff(8, 8, bits=bits, photometric=0 if white_is_zero else 1, pixels=row * 8)
        expected = 1 - level / (2**bits - 1) if white_is_zero else level / (2**bits - 1)
        assert decode(data).tensor.flatten().tolist() == pytest.approx([expected] * 64, abs=1e-6)

    def test_16_bit_transparency_key_becomes_black(self) -> None:
        values = np.full((8, 8), 40000, np.uint16)
        values[0, 0] = 500
        data = encode(Image.fromarray(values), "PNG", transparency=40000)
        decoded = decode(data)
        assert decoded.tensor[0, 0, 0].item() == pytest.approx(500 / 65535)
        assert decoded.tensor[0, 1:].max() == 0
        assert decoded.warnings == ("transparency was flattened onto black",)

    def test_floats_outside_the_range_are_clipped_with_a_warning(self) -> None:
        values = np.linspace(-1, 2, 64, dtype=np.float32).reshape(8, 8)
        decoded = decode(encode(Image.fromarray(values), "TIFF"))
        assert torch.equal(decoded.tensor[0], torch.from_numpy(values).clamp(0, 1))
        assert decoded.warnings == ("66 % of the values are outside 0 to 1 and were clipped",)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_non_finite_floats_are_rejected(self, bad: float) -> None:
        values = np.zeros((8, 8), np.float32)
        values[2, 2] = bad
        with pytest.raises(UnreadableImage, match="not finite"):
            decode(encode(Image.fromarray(values), "TIFF"))


class TestTransparency:
    def test_transparency_becomes_black(self) -> None:
        image = Image.new("RGBA", (8, 8), (200, 200, 200, 0))
        image.putpixel((3, 3), (200, 200, 200, 255))
        image.putpixel((4, 4), (200, 200, 200, 51))
        decoded = decode(encode(image))
        assert decoded.tensor[0, 3, 3].item() == pytest.approx(200 / 255)
        assert decoded.tensor[0, 4, 4].item() == pytest.approx(40 / 255, abs=1 / 255)
        assert decoded.tensor.sum().item() == pytest.approx(240 / 255, abs=0.01)
        assert decoded.warnings == ("transparency was flattened onto black",)

    def test_opaque_image_with_alpha_has_no_warning(self) -> None:
        decoded = decode(encode(gradient().convert("RGBA")))
        assert torch.equal(decoded.tensor, as_tensor(gradient())[None])
        assert decoded.warnings == ()

    @pytest.mark.parametrize("mode", ["LA", "P", "L"])
    def test_transparency_of_other_modes(self, mode: str) -> None:
        if mode == "LA":
            data = encode(Image.new("LA", (8, 8), (255, 0)))
        else:
            data = encode(Image.new("L", (8, 8), 9).convert(mode), "PNG", transparency=9)
        decoded = decode(data)
        assert decoded.tensor.max() == 0
        assert decoded.warnings == ("transparency was flattened onto black",)


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(2, 9))
    @pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
    def test_exif_orientation_is_applied(self, orientation: int, image_format: str) -> None:
        upright = gradient()
        undo = {
            2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }[orientation]  # fmt: skip
        exif = Image.Exif()
        exif[ExifTag.Orientation] = orientation
        options = {"lossless": True} if image_format == "WEBP" else {}
        decoded = decode(encode(upright.transpose(undo), image_format, exif=exif, **options))
        assert torch.equal(decoded.tensor, as_tensor(upright)[None])
        assert decoded.warnings == ("turned upright according to the EXIF orientation",)

    def test_proportions_are_compared_after_rotation(self) -> None:
        exif = Image.Exif()
        exif[ExifTag.Orientation] = 6
        spec = InputSpec(mode="L", height=16, width=8)
        decoded = decode(encode(gradient(16, 8), "JPEG", exif=exif), spec)
        assert decoded.tensor.shape == (1, 16, 8)
        assert decoded.warnings == ("turned upright according to the EXIF orientation",)


@pytest.mark.parametrize("image_format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_first_of_several_frames_is_used(image_format: str) -> None:
    first, second = Image.new("L", (8, 8), 50), Image.new("L", (8, 8), 250)
    options = {"lossless": True} if image_format == "WEBP" else {}
    decoded = decode(encode(first, image_format, save_all=True, append_images=[second], **options))
    assert sorted(set(decoded.tensor.flatten().tolist())) == pytest.approx([50 / 255], abs=1e-6)
    assert decoded.warnings == ("only the first of several frames was used",)


class TestSize:
    def test_images_are_resized_with_a_warning(self) -> None:
        decoded = decode(encode(Image.new("L", (20, 20), 70)))
        assert decoded.tensor.shape == (1, 8, 8)
        assert decoded.warnings == ("resized from 20×20 to 8×8",)
        assert decode(encode(Image.new("L", (20, 10)))).warnings == (
            "resized from 20×10 to 8×8, which changed its proportions",
        )

    def test_resizing_is_antialiased(self) -> None:
        stripes = np.zeros((64, 64), np.uint8)
        stripes[:, ::2] = 255
        tensor = decode(encode(Image.fromarray(stripes))).tensor
        assert ((tensor - 0.5).abs() < 0.08).all()  # a filter that skips pixels gives pure black or white

    @pytest.mark.parametrize("spec", [GREY, COLOUR])
    @pytest.mark.parametrize(("down", "across"), [(2, 2), (4, 4), (10, 10), (3, 7)])
    def test_area_reduction_returns_the_original_of_repeated_pixels(
        self, spec: InputSpec, down: int, across: int
    ) -> None:
        original = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
        file = encode(Image.fromarray(original.repeat(down, axis=0).repeat(across, axis=1)))
        area = spec.model_copy(update={"reduction": "area"})
        assert torch.equal(decode(file, area).tensor, decode(encode(Image.fromarray(original)), area).tensor)
        assert not torch.equal(decode(file, spec).tensor, decode(file, area).tensor)

    def test_area_reduction_of_deep_images(self) -> None:
        original = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
        file = encode(Image.fromarray(original.repeat(3, axis=0).repeat(3, axis=1)))
        torch.testing.assert_close(
            decode(file, AREA).tensor[0], torch.from_numpy((original / 65535).astype(np.float32))
        )

    def test_area_reduction_by_other_factors_is_antialiased(self) -> None:
        for width in (9, 15, 21, 64, 100):
            stripes = np.zeros((width, width), np.uint8)
            stripes[:, ::2] = 255
            tensor = decode(encode(Image.fromarray(stripes)), AREA).tensor
            assert abs(float(tensor.mean()) - stripes.mean() / 255) < 0.02
            if width >= 2 * AREA.width:
                assert ((tensor - 0.5).abs() < 0.35).all()

    def test_smaller_images_are_enlarged_alike_by_both_reductions(self) -> None:
        file = encode(gradient(5, 7))
        assert torch.equal(decode(file, AREA).tensor, decode(file).tensor)

    @pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 999), (999, 1)])
    def test_extreme_proportions_are_decoded(self, width: int, height: int) -> None:
        assert decode(encode(Image.new("L", (width, height), 9))).tensor.shape == (1, 8, 8)

    def test_pixel_limit_is_exact(self) -> None:
        data = encode(Image.new("1", (100, 50)))
        open_image(data, max_pixels=5000)
        with pytest.raises(TooManyPixels, match="100 × 50 = 5,000 pixels, more than 4,999"):
            open_image(data, max_pixels=4999)

    def test_decompression_bomb_is_rejected_by_its_header(self) -> None:
        bomb = hostile.png(60_000, 60_000, rows=b"")
        assert len(bomb) < 200
        with pytest.raises(TooManyPixels):
            open_image(bomb, max_pixels=25_000_000)


class TestUnreadable:
    @pytest.mark.parametrize(
        "data",
        [
            b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP",
            b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0" * 1000,
        ],
    )  # fmt: skip
    def test_files_that_are_not_images(self, data: bytes) -> None:
        with pytest.raises(UnreadableImage):
            decode(data)

    @pytest.mark.parametrize("image_format", ["ICO", "TGA", "PCX", "EPS"])
    def test_unsupported_formats(self, image_format: str) -> None:
        with pytest.raises(UnreadableImage, match="formats PNG, JPEG"):
            decode(encode(gradient(32, 32).convert("RGB"), image_format))

    @pytest.mark.parametrize("image_format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000"])
    def test_truncated_files(self, image_format: str) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
        data = encode(noise, image_format)
        for length in range(0, len(data) - 40, max(1, len(data) // 25)):
            with pytest.raises(UnreadableImage):
                decode(data[:length])

    def test_png_without_its_end(self) -> None:
        data = encode(gradient())
        for cut in (1, 4, 12, 20):
            with pytest.raises(UnreadableImage, match="truncated"):
                decode(data[:-cut])
        decode(data + b"trailing bytes are ignored")

    def test_flipped_bits_raise_no_other_error(self) -> None:
        random = np.random.default_rng(1)
        for image_format in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000"):
            data = encode(gradient(16, 16), image_format)
            for _ in range(150):
                damaged = bytearray(data)
                for position in random.integers(0, len(data), 3):
                    damaged[position] ^= 1 << random.integers(8)
                try:
                    tensor = decode(bytes(damaged)).tensor
                except (UnreadableImage, TooManyPixels) as error:
                    assert "\n" not in str(error)  # noqa: PT017  both outcomes are valid
                else:
                    assert tensor.shape == (1, 8, 8)


def test_equal_pixels_give_equal_tensors_in_all_formats() -> None:
    tensors = [
        decode(encode(image, image_format)).tensor
        for image_format in ("PNG", "BMP", "TIFF")
        for image in (gradient(21, 13), gradient(21, 13).convert("RGB"), gradient(21, 13).convert("RGBA"))
        if (image_format, image.mode) != ("BMP", "RGBA")
    ]
    assert all(torch.equal(tensor, tensors[0]) for tensor in tensors)


def _tiff(width: int, height: int, *, bits: int, photometric: int, pixels: bytes) -> bytes:
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    return hostile.tiff({tag: (4, 1, value) for tag, value in tags.items()}, pixels)
