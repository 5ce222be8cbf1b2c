"""Tensors to images for people: reconstruction, error map, both next to the input, and a map over an uploaded image.

The error map's colour scale is fixed, the same for every image and model. The position on the scale is the square root
of a pixel's squared error (mean over channels): 0 black … 0.25 purple … 0.5 red … 0.75 orange … 1 pale yellow. The root
keeps small errors visible.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

_SCALE_ANCHORS: Final = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64
)
_SCALE: Final[NDArray[np.uint8]] = np.stack(
    [np.interp(np.linspace(0, 4, 256), np.arange(5), anchors) for anchors in _SCALE_ANCHORS.T], axis=1
).round().astype(np.uint8)  # fmt: skip

_OPACITY: Final = 0.6  # of a map at and above the threshold
_BOX: Final = np.array((0, 229, 255), np.uint8)  # far from all colours of the scale
_BOX_SHARE: Final = 1 / 300  # thickness of a box's line, as a share of the picture's longer side

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR = 0, 2
_FILTER_UP: Final = 2
_UINT32: Final = struct.Struct(">I")
_DECADES: Final = 6  # of the threshold, above it
_FASTEST: Final = 0  # ISA-L's fastest level; unlike zlib's level 0 it compresses


def to_pixels(values: torch.Tensor) -> NDArray[np.uint8]:
    """Floats in [0, 1] → 8-bit pixels. Values outside are clipped, NaN becomes 0.

    Args:
        values: (…, 1|3, H, W), one image or a batch.

    Returns:
        (…, H, W) for grey, (…, H, W, 3) for colour.
    """
    scaled = values.numpy() * np.float32(255)
    np.fmin(np.fmax(np.rint(scaled, out=scaled), 0, out=scaled), 255, out=scaled)  # fmax replaces NaN
    levels = scaled.astype(np.uint8)
    return levels[..., 0, :, :] if levels.shape[-3] == 1 else np.moveaxis(levels, -3, -1)


def to_image(values: torch.Tensor) -> Image.Image:
    """(1|3, H, W) floats in [0, 1] → an image of mode L or RGB."""
    return Image.fromarray(np.ascontiguousarray(to_pixels(values)))


def error_map(original: torch.Tensor, reconstruction: torch.Tensor) -> NDArray[np.uint8]:
    """The squared error per pixel, mean over channels, on the fixed colour scale.

    Args:
        original: (C, H, W) float in [0, 1].
        reconstruction: the same shape.

    Returns:
        (H, W, 3) 8-bit pixels.
    """
    root = (original - reconstruction).square().mean(dim=0, keepdim=True).sqrt()
    return _SCALE[to_pixels(root)]


def score_map(values: torch.Tensor, threshold: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A map in score units on the same colour scale, with the threshold in the middle, red.

    Up to the threshold, the position is the root of the value's share of it, halved. Above, it is logarithmic and ends
    at a million times the threshold, because a clear defect can reach many thousand times it.

    Args:
        values: (1, h, w) float, positive.
        threshold: of the score that is the map's maximum.
        size: (H, W) of the result.

    Returns:
        (H, W, 3) 8-bit pixels.
    """
    ratio = torch.nn.functional.interpolate(values[None], size, mode="bilinear")[0] / threshold
    return _SCALE[to_pixels(torch.where(ratio <= 1, ratio.sqrt() / 2, 0.5 + ratio.log10() / (2 * _DECADES)))]


def side_by_side(original: torch.Tensor, reconstruction: torch.Tensor, errors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The model's input, the reconstruction and the error map, from left to right.

    Args:
        original: (C, H, W) float in [0, 1].
        reconstruction: the same shape.
        errors: (H, W, 3) pixels of :func:`error_map` or :func:`score_map`.

    Returns:
        (H, 3·W, 3) 8-bit pixels.
    """
    images = [to_pixels(part.expand(3, -1, -1)) for part in (original, reconstruction)]
    return np.concatenate([*images, errors], axis=1)


def overlaid(picture: NDArray[np.uint8], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A picture with a map over it, on the same colour scale.

    Args:
        picture: (H, W, 3).
        values: (H, W): 0 is invisible, 1 is red, 2 and more pale yellow. The map becomes more opaque from 0 to 1.

    Returns:
        (H, W, 3) 8-bit pixels.
    """
    colours = _SCALE[(np.clip(values / 2, 0, 1) * 255).astype(np.uint8)]
    opacity = (np.clip(values, 0, 1) * _OPACITY).astype(np.float32)[..., None]
    return np.rint(picture + (colours.astype(np.float32) - picture) * opacity).astype(np.uint8)


def outlined(picture: NDArray[np.uint8], boxes: Sequence[tuple[int, int, int, int]]) -> NDArray[np.uint8]:
    """A picture with boxes drawn on it.

    Args:
        picture: (H, W, 3).
        boxes: left, top, width and height; their lines are drawn inside.
    """
    drawn = picture.copy()
    thick = max(1, round(max(picture.shape) * _BOX_SHARE))
    for left, top, width, height in boxes:
        box = drawn[top : top + height, left : left + width]
        for line in (box[:thick], box[-thick:], box[:, :thick], box[:, -thick:]):
            line[...] = _BOX
    return drawn


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W) grey or (H, W, 3) colour pixels as a PNG file (W3C PNG, third edition)."""
    return pngs(pixels[None])[0]


def pngs(pixels: NDArray[np.uint8]) -> list[bytes]:
    """(N, H, W) grey or (N, H, W, 3) colour pixels as N PNG files.

    Most answers contain one. Written directly with ISA-L's deflate they take a sixth of the time of an image library's
    encoder.
    """
    count, height, width, *channels = pixels.shape
    rows = pixels.reshape(count, height, -1)
    # Each row is stored as its difference from the row above, which compresses smooth images best.
    filtered = np.empty((count, height, rows.shape[2] + 1), dtype=np.uint8)
    filtered[..., 0] = _FILTER_UP
    filtered[:, 0, 1:] = rows[:, 0]
    np.subtract(rows[:, 1:], rows[:, :-1], out=filtered[:, 1:, 1:])
    begin = _signature_and_header(width, height, _COLOUR if channels else _GREY)
    return [begin + _chunk(b"IDAT", isal_zlib.compress(each, _FASTEST)) + _END for each in filtered]


def _chunk(chunk_type: bytes, data: bytes) -> bytes:
    checked = chunk_type + data
    return b"%b%b%b" % (_UINT32.pack(len(data)), checked, _UINT32.pack(isal_zlib.crc32(checked)))


_END: Final = _chunk(b"IEND", b"")


@lru_cache
def _signature_and_header(width: int, height: int, colour_type: int) -> bytes:
    return _PNG_SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))
