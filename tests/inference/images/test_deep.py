"""Images of more than 8 bits: right values from every kind of file, levels, and warnings about what does not fit."""

import struct

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from app.inference.errors import UnreadableImage
from app.inference.images.decoding import open_image
from app.inference.images.model_input import DecodedImage, InputSpec
from tests import hostile
from tests.deep_images import RANDOM, noise, png, tiff
from tests.support import encode, gradient

SIGNED = "signed values were scaled over their range, -32,768 to 32,767"
TWELVE = "uses only 12 of its 16 bits, and may be too dark for the model"


def decode(data: bytes, *, mode: str = "L", side: int = 8, **fields: object) -> DecodedImage:
    spec = InputSpec.model_validate({"mode": mode, "height": side, "width": side, **fields})
    return open_image(data, max_pixels=10**6).decode(spec)


def unit(values: NDArray[np.generic], white: float = 65535) -> torch.Tensor:
    """(H, W, C) values as the tensor that they should become."""
    return torch.from_numpy(np.moveaxis(values.astype(np.float64) / white, -1, 0).astype(np.float32))


class TestColour:
    """16-bit colour keeps all of its bits."""

    def test_png(self) -> None:
        values = noise(3)
        torch.testing.assert_close(decode(png(values), mode="RGB").tensor, unit(values))

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("compression", [1, 8])
    def test_tiff(self, order: str, compression: int) -> None:
        values = noise(3)
        data = tiff(values, order=order, compression=compression)
        torch.testing.assert_close(decode(data, mode="RGB").tensor, unit(values))

    def test_fourth_channel_of_a_tiff_file(self) -> None:
        values = noise(4)
        unused = decode(tiff(values, extra=0), mode="RGB")
        torch.testing.assert_close(unused.tensor, unit(values[..., :3]))
        assert unused.warnings == ()
        for data in (tiff(values, extra=2), png(values)):
            alpha = decode(data, mode="RGB")
            torch.testing.assert_close(alpha.tensor, unit(values[..., :3]) * unit(values[..., 3:]))
            assert alpha.warnings == ("transparency was flattened onto black",)

    def test_grey_with_alpha_in_a_png_file(self) -> None:
        values = noise(2)
        decoded = decode(png(values))
        torch.testing.assert_close(decoded.tensor, unit(values[..., :1]) * unit(values[..., 1:]))
        assert decoded.warnings == ("transparency was flattened onto black",)
        values[..., 1] = 65535
        assert decode(png(values)).warnings == ()

    def test_grey_model_gets_luma(self) -> None:
        values = noise(3)
        decoded = decode(png(values))
        expected = (unit(values) * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0, keepdim=True)
        torch.testing.assert_close(decoded.tensor, expected)
        assert decoded.warnings == ("colour was converted to grey",)
        grey = decode(png(noise(1).repeat(3, axis=2)))
        assert grey.warnings == ()

    def test_colour_is_resized_and_turned_like_8_bits(self) -> None:
        shallow = RANDOM.integers(0, 256, (24, 40, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[274] = 6
        for fit in ("stretch", "pad", "crop"):
            plain = decode(encode(Image.fromarray(shallow), exif=exif), mode="RGB", fit=fit)
            file = png(shallow.astype(np.uint16) * 257)
            turned = file[:33] + hostile.chunk(b"eXIf", exif.tobytes()[6:]) + file[33:]
            deep = decode(turned, mode="RGB", fit=fit)
            torch.testing.assert_close(deep.tensor, plain.tensor, atol=1.1 / 255, rtol=0)
            assert deep.warnings == plain.warnings
            assert len(deep.warnings) == 2

    def test_transparent_colour_of_a_png_file(self) -> None:
        values = noise(3)
        key = hostile.chunk(b"tRNS", values[2, 3].astype(">u2").tobytes())
        file = png(values)
        decoded = decode(file[:33] + key + file[33:], mode="RGB", background="#ff8000")
        assert decoded.tensor[:, 2, 3].tolist() == pytest.approx([1, 128 / 255, 0])
        torch.testing.assert_close(decoded.tensor[:, 0], unit(values)[:, 0])
        assert decoded.warnings == ("transparency was flattened onto #ff8000",)

    @pytest.mark.parametrize("options", [{"separate": True}, {"extra": 1}])
    def test_kinds_that_pillow_reads_with_8_bits_have_a_warning(self, options: dict[str, object]) -> None:
        values = noise(4 if "extra" in options else 3)
        values[..., 3:] = 65535
        decoded = decode(tiff(values, **options), mode="RGB")  # type: ignore[arg-type]
        torch.testing.assert_close(decoded.tensor, unit(values[..., :3]), atol=1 / 255, rtol=0)
        assert decoded.warnings == ("colour of more than 8 bits was reduced to 8 bits",)


class TestSigned:
    def test_16_bits(self) -> None:
        values = noise(1)
        signed = (values.astype(np.int32) - 32768).astype(np.int16)
        for order in "<>":
            decoded = decode(tiff(signed, order=order))
            torch.testing.assert_close(decoded.tensor, unit(values))
            assert decoded.warnings == (SIGNED,)
        positive = decode(tiff(np.full((8, 8, 1), 32767, np.int16)))
        assert positive.warnings == (f"{SIGNED}, although none is negative",)
        assert positive.tensor.min() == 1

    def test_8_bits(self) -> None:
        values = RANDOM.integers(0, 256, (8, 8, 1), dtype=np.uint8)
        decoded = decode(tiff((values.astype(np.int16) - 128).astype(np.int8)))
        torch.testing.assert_close(decoded.tensor, unit(values, 255))
        assert decoded.warnings == ("signed values were scaled over their range, -128 to 127",)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_32_bits(self, order: str) -> None:
        values = np.array([[[-(2**31)], [0], [2**31 - 1], [2**30]]], np.int32).repeat(4, axis=0)
        decoded = decode(tiff(values, order=order), side=4)
        assert decoded.tensor[0, 0].tolist() == pytest.approx([0, 0.5, 1, 0.75])

    def test_levels_are_in_the_units_of_the_file(self) -> None:
        values = np.array([[[-100], [0], [100], [400]]], np.int16).repeat(4, axis=0)
        decoded = decode(tiff(values), side=4, black=-100, white=300)
        assert decoded.tensor[0, 0].tolist() == pytest.approx([0, 0.25, 0.5, 1])
        assert decoded.warnings == ("25 % of the values are outside -100 to 300 and were clipped",)


class TestRefusedKinds:
    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            (np.zeros((8, 8, 1), np.float64), "one channel of 64-bit floating-point values"),
            (np.zeros((8, 8, 3), np.float32), "3 channels of 32-bit floating-point values"),
            (np.zeros((8, 8, 3), np.int16), "3 channels of 16-bit signed integer values"),
            (np.zeros((8, 8, 2), np.uint16), "2 channels of 16-bit unsigned integer values"),
            (np.zeros((8, 8, 1), np.uint64), "one channel of 64-bit unsigned integer values"),
        ],
    )
    def test_kind_is_named(self, values: NDArray[np.generic], kind: str) -> None:
        with pytest.raises(UnreadableImage, match=f"^TIFF images with {kind} are not supported; save as "):
            decode(tiff(values))

    def test_damaged_ordinary_file_is_not_called_unsupported(self) -> None:
        data = tiff(np.zeros((8, 8, 3), np.uint8)).replace(
            struct.pack("<HHIHH", 262, 3, 1, 2, 0), struct.pack("<HHIHH", 262, 3, 1, 99, 0)
        )
        with pytest.raises(UnreadableImage, match="not a readable image"):
            decode(data)


class TestLevels:
    @pytest.mark.parametrize("bits", [10, 12, 14])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_cameras_range_becomes_the_range_of_the_input(self, bits: int, channels: int) -> None:
        values = noise(channels, bits)
        values[0, 0] = 2**bits - 1
        mode = "L" if channels == 1 else "RGB"
        for data in (png(values), tiff(values)):
            decoded = decode(data, mode=mode, black=0, white=2**bits - 1)
            torch.testing.assert_close(decoded.tensor, unit(values, 2**bits - 1))
            assert decoded.warnings == ()

    def test_black_level(self) -> None:
        values = np.array([[[64], [64 + 239], [64 + 478], [1020]]], np.uint16).repeat(4, axis=0)
        decoded = decode(png(values), side=4, black=64, white=1020)
        assert decoded.tensor[0, 0].tolist() == pytest.approx([0, 0.25, 0.5, 1])

    def test_values_beyond_the_levels_are_clipped_with_a_warning(self) -> None:
        values = np.full((8, 8, 1), 1000, np.uint16)
        values[0, :2] = 4096
        decoded = decode(png(values), black=0, white=4095)
        assert decoded.tensor.max() == 1
        assert decoded.warnings == ("3.1 % of the values are outside 0 to 4,095 and were clipped",)

    def test_values_far_below_white_have_a_warning(self) -> None:
        values = np.full((8, 8, 1), 1023, np.uint16)
        assert decode(png(values), black=0, white=4095).warnings == (
            "the highest value is 1,023, far below 4,095, which is white for the model",
        )
        assert decode(png(values + 1), black=0, white=4095).warnings == ()

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_floating_point(self, order: str) -> None:
        values = (RANDOM.integers(0, 256, (8, 8, 1))).astype(np.float32)
        values[0, 0] = 255
        decoded = decode(tiff(values, order=order), black=0, white=255)
        torch.testing.assert_close(decoded.tensor, unit(values, 255))
        assert decoded.warnings == ()
        clipped = decode(tiff(values))
        assert clipped.tensor.max() == 1
        assert clipped.warnings[0].endswith("% of the values are outside 0 to 1 and were clipped")

    def test_8_bits_are_always_divided_by_255(self) -> None:
        plain = decode(encode(gradient()))
        for image_format in ("PNG", "TIFF"):
            decoded = decode(encode(gradient(), image_format), black=0, white=4095)
            assert torch.equal(decoded.tensor, plain.tensor)
            assert decoded.warnings == ()

    @pytest.mark.parametrize(
        ("bits", "warned"), [(8, 8), (9, 10), (12, 12), (13, 14), (14, 14), (15, None), (16, None)]
    )
    def test_without_levels_unused_bits_have_a_warning(self, bits: int, warned: int | None) -> None:
        expected = (f"uses only {warned} of its 16 bits, and may be too dark for the model",) if warned else ()
        for channels in (1, 3):
            values = np.full((8, 8, channels), 2**bits - 1, np.uint16)
            decoded = decode(png(values), mode="RGB")
            assert decoded.tensor.max() == pytest.approx((2**bits - 1) / 65535)
            assert decoded.warnings == expected

    @pytest.mark.parametrize("bits", [10, 12, 16])
    def test_jpeg_2000_has_the_values_of_its_own_depth(self, bits: int) -> None:
        values = noise(1, bits)
        data = _jpeg2000_of(values, bits)
        torch.testing.assert_close(decode(data).tensor, unit(values, 2**bits - 1))
        torch.testing.assert_close(decode(data, black=0, white=2**bits - 1).tensor, unit(values, 2**bits - 1))


def _jpeg2000_of(values: NDArray[np.uint16], bits: int) -> bytes:
    """Pillow writes 16 bits; of lossless data, fewer bits are the same numbers around another middle."""
    middle = 2**15 - 2 ** (bits - 1)
    data = encode(Image.fromarray(values[..., 0] + np.uint16(middle)), "JPEG2000", no_jp2=True)
    at = data.index(b"\xff\x51") + 2 + 38
    assert data[at] == 15
    return data[:at] + bytes([bits - 1]) + data[at + 1 :]


class TestBackground:
    @pytest.mark.parametrize(("background", "colour"), [("white", 1.0), ("black", 0.0), ("#808080", 128 / 255)])
    def test_transparency_becomes_the_background(self, background: str, colour: float) -> None:
        image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        image.putpixel((3, 3), (0, 0, 0, 255))
        decoded = decode(encode(image), background=background)
        assert decoded.tensor[0, 0, 0].item() == pytest.approx(colour)
        assert decoded.tensor[0, 3, 3].item() == 0
        assert decoded.warnings == (f"transparency was flattened onto {background}",)

    def test_16_bits_are_flattened_onto_the_same_colour(self) -> None:
        values = np.zeros((8, 8, 4), np.uint16)
        values[3, 3] = 65535
        values[4, 4, 3] = 32768
        decoded = decode(png(values), mode="RGB", background="#ff0080")
        assert decoded.tensor[:, 0, 0].tolist() == pytest.approx([1, 0, 128 / 255])
        assert decoded.tensor[:, 3, 3].tolist() == pytest.approx([1, 1, 1])
        assert decoded.tensor[:, 4, 4].tolist() == pytest.approx([0.5, 0, 64 / 255], abs=1e-4)

    def test_opaque_images_do_not_depend_on_it(self) -> None:
        for data in (encode(gradient()), encode(gradient().convert("RGBA")), png(noise(1))):
            assert torch.equal(decode(data, background="white").tensor, decode(data).tensor)


class TestSpec:
    @pytest.mark.parametrize(
        "fields", [{"black": 0}, {"white": 4095}, {"black": 5, "white": 5}, {"black": 0, "white": float("inf")}]
    )
    def test_impossible_levels_are_refused(self, fields: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=r"black|white"):
            InputSpec.model_validate({"mode": "L", "height": 8, "width": 8, **fields})

    @pytest.mark.parametrize("background", ["whitish", "#12345", "rgba(0,0,0,0)", "#11223344", ""])
    def test_unknown_colours_are_refused(self, background: str) -> None:
        with pytest.raises(ValueError, match="neither the name of a colour"):
            InputSpec.model_validate({"mode": "L", "height": 8, "width": 8, "background": background})

    def test_fields_without_effect_are_known(self) -> None:
        plain = InputSpec(mode="L", height=8, width=8)
        assert plain.unused == {"fit", "reduction", "jpeg", "black", "white", "background"}
        assert InputSpec(mode="L", height=8, width=8, black=0, white=4095, background="White").unused == {
            "fit",
            "reduction",
            "jpeg",
        }
