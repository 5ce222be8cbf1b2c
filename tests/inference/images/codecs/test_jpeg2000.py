"""JPEG 2000: images decode exactly; headers that would make the decoder allocate far too much are rejected."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from app.inference.errors import TooManyPixels, UnreadableImage
from app.inference.images.codecs import jpeg2000
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from tests import hostile
from tests.support import encode, gradient

LIMIT = 10**6
OPTIONS = [
    {}, {"no_jp2": True}, {"tile_size": (64, 64)}, {"precinct_size": (128, 128)}, {"codeblock_size": (16, 16)},
    {"quality_layers": [20, 10, 1]}, {"num_resolutions": 1}, {"irreversible": True}, {"progression": "PCRL"},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_header_of_ordinary_files(options: dict[str, object], mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 210, 4), dtype=np.uint8)
    data = encode(Image.fromarray(noise).convert(mode), "JPEG2000", **options)
    assert jpeg2000.read_header(data) == (210, 150, 8)
    open_image(data, max_pixels=LIMIT).decode(InputSpec(mode="L", height=8, width=8))


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}])
def test_lossless_pixels_are_exact(options: dict[str, object]) -> None:
    decoded = open_image(encode(gradient(), "JPEG2000", **options), max_pixels=LIMIT).decode(
        InputSpec(mode="L", height=8, width=8)
    )
    assert torch.equal(decoded.tensor[0], torch.from_numpy(np.asarray(gradient()) / np.float32(255)))
    assert decoded.warnings == ()


def test_pixel_limit_holds_for_container_and_codestream() -> None:
    data = encode(Image.new("L", (100, 50)), "JPEG2000")
    sides = struct.pack(">II", 50, 100)
    assert data.count(sides) == 1  # of the container: height, width
    lying = data.replace(sides, struct.pack(">II", 8, 8))
    for each in (data, lying):
        open_image(each, max_pixels=5000)
        with pytest.raises(TooManyPixels, match="100 × 50"):
            open_image(each, max_pixels=4999)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("j2k-one-pixel-tiles", "921,600 tiles"),
        ("j2k-one-pixel-precincts", "precincts of less than 32 pixels"),
        ("j2k-small-blocks", "code-blocks of less than 256 pixels"),
        ("j2k-layers", "more than 256 layers"),
        ("j2k-many-comments", "too many small pieces"),
        ("j2k-channels", "16384 channels"),
        ("j2k-header-alone", "truncated or damaged"),
    ],
)
def test_headers_beyond_the_limits_are_rejected(name: str, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        jpeg2000.read_header(hostile.corpus()[name])


@pytest.mark.parametrize("tile", [0, 1, 3])
def test_limits_hold_for_the_headers_of_tiles_too(tile: int) -> None:
    data = encode(Image.new("L", (64, 64)), "JPEG2000", no_jp2=True, tile_size=(32, 32))
    begin = data.index(b"\xff\x90")
    for _ in range(tile):
        begin += int.from_bytes(data[begin + 6 : begin + 10])
    assert data[begin + 4 : begin + 6] == bytes([0, tile])
    coding = b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x00\x00\x00\x00"
    length = int.from_bytes(data[begin + 6 : begin + 10]) + len(coding)
    hidden = data[: begin + 6] + length.to_bytes(4) + data[begin + 10 : begin + 12] + coding + data[begin + 12 :]
    jpeg2000.read_header(data)
    with pytest.raises(UnreadableImage, match="code-blocks"):
        jpeg2000.read_header(hidden)
