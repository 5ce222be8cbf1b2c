"""Brings decoded images to the size of a model's input.

JPEG files may be decoded at a fraction of their size, which a discrete cosine transform of fewer coefficients gives.
What is decoded can then be wider than the image by a fraction of a pixel: a :data:`Box` says where the image is.
"""

import math
from typing import Final, TypeAlias

import numpy as np
from PIL import Image

from app.inference.images.model_input import InputSpec, Reduction

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom in an image, in pixels."""

FULL: Final = 1
_SCALES: Final = (8, 4, 2)  # libjpeg's, fastest first


def jpeg_scale(width: int, height: int, spec: InputSpec) -> int:
    """The divisor of the size at which a JPEG image is decoded: 8, 4, 2 or 1.

    What is decoded is never smaller than the input in any direction: then the mean over blocks that the transform gives
    is a part of the reduction that would follow.

    Args:
        width: of the upright image.
        height: likewise.
        spec: the input.
    """
    if spec.jpeg == "full":
        return FULL
    across, down = width / spec.width, height / spec.height
    factor = max(across, down) if spec.fit == "pad" else min(across, down)
    return next((scale for scale in _SCALES if scale <= min(factor, width, height)), FULL)


def whole(image: Image.Image) -> Box:
    """The box of an image that fills its pixels."""
    return (0, 0, *image.size)


def fitted(image: Image.Image, box: Box, spec: InputSpec) -> Image.Image:
    """The part of an image in a box, at the input's size."""
    (width, height), (to_width, to_height) = _size(box), (spec.width, spec.height)
    if spec.fit == "stretch" or width * to_height == height * to_width:
        return _resample(image, (to_width, to_height), spec.reduction, box)
    return (_pad if spec.fit == "pad" else _crop)(image, (to_width, to_height), spec.reduction, box)


def _size(box: Box) -> tuple[float, float]:
    left, top, right, bottom = box
    return right - left, bottom - top


def _resample(image: Image.Image, size: tuple[int, int], reduction: Reduction, box: Box) -> Image.Image:
    """Resamples a box of an image to (width, height).

    An image whose pixels were repeated a whole number of times is reduced to the original, which no filter does that is
    wider than a pixel of the result. For the rest, a bicubic filter blurs less than a bilinear one.
    """
    width, height = _size(box)
    if reduction == "bilinear" or (width <= size[0] and height <= size[1]):
        return image.resize(size, Image.Resampling.BILINEAR, box=box)
    left, top = math.floor(box[0]), math.floor(box[1])
    around = (left, top, math.ceil(box[2]), math.ceil(box[3]))
    if around != whole(image):  # whole factors are counted from the corner of the image
        image, box = image.crop(around), (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=1.0)


def _pad(image: Image.Image, size: tuple[int, int], reduction: Reduction, box: Box) -> Image.Image:
    """Resamples a box to the largest (width, height) within ``size``, and fills the rest by reflection.

    Black bars would be edges that no product has, and repeated edge pixels draw a speck at the edge out to a line. The
    reflection continues the surface with nothing that the image does not show.
    """
    sides = _size(box)
    scale = min(to / side for to, side in zip(size, sides, strict=True))
    inner = tuple(max(1, min(to, round(side * scale))) for to, side in zip(size, sides, strict=True))
    width, height = ((to - side) for to, side in zip(size, inner, strict=True))
    resampled = np.asarray(_resample(image, (inner[0], inner[1]), reduction, box))
    border = [(height // 2, height - height // 2), (width // 2, width - width // 2), (0, 0)]
    return Image.fromarray(np.pad(resampled, border[: resampled.ndim], mode="symmetric"))


def _crop(image: Image.Image, size: tuple[int, int], reduction: Reduction, box: Box) -> Image.Image:
    """Resamples the largest window with the proportions of ``size``, in the middle of a box.

    The window begins at a whole pixel, so that an image which needs no resampling is not blurred.
    """
    (width, height), (to_width, to_height) = _size(box), size
    window = (min(width, height * to_width / to_height), min(height, width * to_height / to_width))
    left, top = box[0] + (width - window[0]) // 2, box[1] + (height - window[1]) // 2
    return _resample(image, size, reduction, (left, top, left + window[0], top + window[1]))
