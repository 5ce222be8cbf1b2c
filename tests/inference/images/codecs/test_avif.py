"""AVIF: images decode; what the AV1 data would make the decoder do is limited."""

import io

import numpy as np
import pytest
from PIL import Image

from app.inference.errors import TooManyPixels, UnreadableImage
from app.inference.images.codecs import avif
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from tests import hostile
from tests.support import encode, gradient

LIMIT = 10**6


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4", "speed": 10}, {"tile_rows": 1, "autotiling": False}])
def test_frames_have_the_size_of_the_image(mode: str, options: dict[str, object]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 210, 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    frames = avif.frames(encode(image, "AVIF", **options))
    assert frames.largest == 150 * 210
    assert frames.total == 150 * 210 * (2 if mode == "RGBA" else 1)  # alpha is a frame of its own


def test_grey_image_gives_approximate_pixels() -> None:
    decoded = open_image(encode(gradient(), "AVIF", quality=100), max_pixels=LIMIT).decode(
        InputSpec(mode="L", height=8, width=8)
    )
    assert np.abs(decoded.pixels[0].astype(int) - np.asarray(gradient()).astype(int)).max() <= 3
    assert decoded.warnings == ()


def test_frame_that_is_larger_than_the_container_says_is_rejected() -> None:
    data = hostile.corpus()["avif-large-frame"]
    assert Image.open(io.BytesIO(data)).size == (8, 8)
    assert avif.frames(data).largest == 2048 * 2048
    with pytest.raises(TooManyPixels, match="frames of 4,194,304 pixels"):
        open_image(data, max_pixels=2048 * 2048 - 1)
    open_image(data, max_pixels=2048 * 2048)


def test_sum_of_all_frames_is_limited() -> None:
    many = hostile.avif_with_frames(10)
    assert avif.frames(many) == (16 * 12, 10 * 16 * 12)
    with pytest.raises(TooManyPixels, match="1,920 pixels in total"):
        open_image(many, max_pixels=16 * 12)
    open_image(many, max_pixels=10 * 16 * 12)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(gradient(), "AVIF", save_all=True, append_images=[gradient()]), "animations are not supported"),
        (hostile.avif_with_frames(17), "more than 16 frames"),
        (hostile.avif_with_frames(4000), "more than 1,024 pieces"),
        (hostile.avif_with_items(1025), "more than 1,024 parts"),
        (encode(gradient(), "AVIF").replace(b"iloc", b"free"), "damaged"),
        (encode(gradient(), "AVIF").replace(b"meta", b"free"), "damaged"),
    ],
)
def test_files_beyond_the_limits_are_rejected(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        avif.frames(data)
