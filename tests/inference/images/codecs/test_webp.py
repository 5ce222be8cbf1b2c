"""WebP files: still pictures get the values of Pillow, which decodes the others and says what is wrong with a file."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL import ImageFile as PillowFile
from PIL.ExifTags import Base as ExifTag

from app.inference.images.codecs import webp
from app.inference.images.decoding import decode
from app.inference.images.model_input import DecodedImage, InputSpec
from tests.support import encode

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lossy": ("RGB", {}),
    "lossless": ("RGB", {"lossless": True}),
    "transparent": ("RGBA", {}),
    "transparent-lossless": ("RGBA", {"lossless": True, "exact": True}),
    "with-metadata": ("RGB", {"exif": Image.Exif(), "icc_profile": b"profile"}),
    "animated": ("RGB", {"save_all": True, "append_images": [Image.new("RGB", (7, 5))]}),
}
"""Pillow's mode and options."""
MAX_PIXELS = 100_000  # others take seconds


def noise(width: int, height: int, mode: str, seed: int = 0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(levels)


def opened(data: bytes) -> PillowFile.ImageFile:
    return Image.open(io.BytesIO(data), formats=["WEBP"])


def outcome(data: bytes, *, by_pillow: bool) -> tuple[str, bytes]:
    """Mode and values; or that there is an error, or too large a size."""
    try:
        image = opened(data)
        if image.width * image.height > MAX_PIXELS:
            return ("error", b"")
        loaded = image.copy() if by_pillow else webp.load(image, data)
    except Exception:
        return ("error", b"")
    return image.mode, loaded.convert(image.mode).tobytes()


@pytest.fixture(params=KINDS)
def file(request: pytest.FixtureRequest) -> bytes:
    """A small file of each kind."""
    mode, options = KINDS[request.param]
    return encode(noise(7, 5, mode), "WEBP", **options)


def test_library_of_pillow_is_used() -> None:
    """Otherwise the other tests would compare Pillow with itself."""
    assert webp.IS_AVAILABLE


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "animated"])
@given(width=st.integers(1, 70), height=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_still_picture_has_the_values_of_pillow(kind: str, width: int, height: int, seed: int) -> None:
    mode, options = KINDS[kind]
    data = encode(noise(width, height, mode, seed), "WEBP", **options)
    image = opened(data)
    assert webp.load(image, data) is not image
    assert outcome(data, by_pillow=False) == outcome(data, by_pillow=True) != ("error", b"")


def test_animated_picture_is_decoded_by_pillow() -> None:
    mode, options = KINDS["animated"]
    data = encode(noise(7, 5, mode), "WEBP", **options)
    image = opened(data)
    assert webp.load(image, data) is image
    assert image.tobytes() == opened(data).tobytes()


def test_picture_of_another_size_than_announced_is_decoded_by_pillow() -> None:
    """Otherwise a part of the memory would not be written."""
    image, smaller = opened(encode(noise(7, 5, "RGB"), "WEBP")), encode(noise(6, 5, "RGB"), "WEBP")
    assert webp.load(image, smaller) is image


def test_cut_file_has_the_outcome_of_pillow(file: bytes) -> None:
    for end in range(len(file)):
        assert outcome(file[:end], by_pillow=False) == outcome(file[:end], by_pillow=True)


def test_damaged_file_has_the_outcome_of_pillow(file: bytes) -> None:
    random = np.random.default_rng(0)
    for at in range(len(file)):
        damaged = bytearray(file)
        damaged[at] ^= int(random.integers(1, 256))
        assert outcome(bytes(damaged), by_pillow=False) == outcome(bytes(damaged), by_pillow=True)


def test_file_with_a_second_picture_has_the_outcome_of_pillow(file: bytes) -> None:
    """The chunks of another size follow or precede those of the file."""
    other = encode(noise(9, 11, "RGB"), "WEBP")
    for chunks in (file[12:] + other[12:], other[12:] + file[12:]):
        data = b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WEBP" + chunks
        assert outcome(data, by_pillow=False) == outcome(data, by_pillow=True)


class TestConversion:
    """Decoding to a model's input has the same result as with Pillow alone."""

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    @pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
    @pytest.mark.parametrize("size", [(7, 5), (4, 4), (4, 20)])
    def test_input_is_that_of_pillow(
        self, file: bytes, mode: str, fit: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = InputSpec.model_validate({"mode": mode, "width": size[0], "height": size[1], "fit": fit})
        image = decode(file, spec, max_pixels=100)
        monkeypatch.setattr(webp, "_LIBRARY", None)
        self.require_equal(image, decode(file, spec, max_pixels=100))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_image_is_turned_upright(self, orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
        exif = Image.Exif()
        exif[ExifTag.Orientation] = orientation
        file = encode(noise(7, 5, "RGB"), "WEBP", exif=exif)
        spec = InputSpec(mode="RGB", width=6, height=6)
        image = decode(file, spec, max_pixels=100)
        monkeypatch.setattr(webp, "_LIBRARY", None)
        self.require_equal(image, decode(file, spec, max_pixels=100))

    @staticmethod
    def require_equal(one: DecodedImage, other: DecodedImage) -> None:
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.warnings == other.warnings
        assert one.size == other.size
