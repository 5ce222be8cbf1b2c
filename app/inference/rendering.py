"""Tensors → pictures that a person can look at: reconstruction, error map, the three side by side.

The error map's colours have a fixed scale, the same for every picture and model: the position on the scale
is the square root of a pixel's squared error (mean over channels), 0 black … 0.25 purple … 0.5 red …
0.75 orange … 1 pale yellow. The root keeps faint errors visible.
"""

import io
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

_SCALE_ANCHORS: Final = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float64
)
_SCALE: Final[NDArray[np.uint8]] = np.stack(
    [np.interp(np.linspace(0, 4, 256), np.arange(5), anchors) for anchors in _SCALE_ANCHORS.T], axis=1
).round().astype(np.uint8)  # fmt: skip


def to_image(tensor: torch.Tensor) -> Image.Image:
    """(1|3, H, W) float in [0, 1] → an 8-bit picture, mode L or RGB; values outside are clipped."""
    levels = (tensor.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0)))


def error_map(original: torch.Tensor, reconstruction: torch.Tensor) -> Image.Image:
    """The squared error per pixel, mean over channels, on the fixed colour scale.

    Args:
        original: (C, H, W) float in [0, 1].
        reconstruction: the same shape.
    """
    root = (original - reconstruction).square().mean(dim=0).sqrt().clamp(0, 1)
    return Image.fromarray(_SCALE[(root * 255).round().to(torch.uint8).numpy()])


def side_by_side(original: torch.Tensor, reconstruction: torch.Tensor) -> Image.Image:
    """One RGB picture, 3·W × H: what the model saw, its reconstruction, the error map."""
    parts = (to_image(original), to_image(reconstruction), error_map(original, reconstruction))
    width, height = parts[0].size
    sheet = Image.new("RGB", (3 * width, height))
    for column, part in enumerate(parts):
        sheet.paste(part, (column * width, 0))
    return sheet


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file; compression level 1, since these are small and made per request."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
