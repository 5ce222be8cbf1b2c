"""Synthetic defects: what a recipe must tell from normal images, where no anomaly is at hand.

Six local kinds: a patch of another image (CutPaste; Li et al., 2021), a soft spot, a scratch, a foreign texture
(DRAEM; Zavrtanik et al., 2021), a blurred and a noisy region. One kind for small images, which show a symbol or an
object as a whole: a large region is turned or mirrored, so that the shape is wrong.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFilter

Pixels = npt.NDArray[np.float32]
"""(C, H, W) in [0, 1], or a mask (H, W)."""

_AREA: Final = (0.002, 0.04)  # of a local defect, as a share of the image
_LARGE_AREA: Final = (0.3, 0.8)
_CONTRAST: Final = (0.08, 0.35)  # of a defect to its surroundings, as a share of the range of values
_VISIBLE: Final = 0.03  # mean absolute change within the mask; a defect below it is drawn again
_TRIES: Final = 8
_SCRATCH_POINTS: Final = 5


class _Kind(NamedTuple):
    """A kind of defect: within a mask, an image, or a foreign one, is changed."""

    mask: Callable[[int, int, np.random.Generator, tuple[float, float]], Pixels]
    change: Callable[[Pixels, np.random.Generator], Pixels]
    foreign: bool = False
    area: tuple[float, float] = _AREA


def with_defects(images: torch.Tensor, seed: int, *, local: bool = True) -> torch.Tensor:
    """Copies of images, each with one defect of random place, size and strength; the kinds take turns.

    Args:
        images: (N, C, H, W) float32 in [0, 1], at least one.
        seed: of all random choices.
        local: local kinds; else the kind for small images.
    """
    random, pixels = np.random.default_rng(seed), images.numpy()
    kinds = _LOCAL if local else _SHAPE
    return torch.from_numpy(
        np.stack(
            [
                _with_defect(image, pixels[random.integers(len(pixels))], kinds[at % len(kinds)], random)
                for at, image in enumerate(pixels)
            ]
        )
    )


def _with_defect(image: Pixels, other: Pixels, kind: _Kind, random: np.random.Generator) -> Pixels:
    defective = image
    for _ in range(_TRIES):
        mask = kind.mask(image.shape[1], image.shape[2], random, kind.area)
        changed = kind.change(other if kind.foreign else image, random)
        defective = image + mask * (np.clip(changed, 0, 1) - image)
        if np.abs(defective - image).sum() >= _VISIBLE * max(mask.sum(), 1) * len(image):  # a pixel at least
            break
    return _float32(defective)


def _blob(height: int, width: int, random: np.random.Generator, area: tuple[float, float]) -> Pixels:
    """The mask of an ellipse with an irregular outline and a soft edge."""
    radius = np.sqrt(np.exp(random.uniform(*np.log(area))) * height * width / np.pi)
    stretch, angle = np.exp(random.uniform(-0.8, 0.8)), random.uniform(0, np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y - random.uniform(0.05, 0.95) * height, x - random.uniform(0.05, 0.95) * width
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    direction = np.arctan2(across, along)
    outline = np.exp(
        sum(random.normal(0, 0.15 / k) * np.cos(k * direction + random.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    )
    softness = max(random.uniform(0.05, 0.4), 1 / radius)
    distance = np.hypot(along / stretch, across * stretch) / (radius * outline)
    return _float32(np.clip((1 + softness / 2 - distance) / softness, 0, 1))


def _line(height: int, width: int, random: np.random.Generator, area: tuple[float, float]) -> Pixels:  # noqa: ARG001
    """The mask of a thin, slightly bent line; its area follows from its length."""
    side = max(height, width)
    heading, step = random.uniform(0, 2 * np.pi), side * random.uniform(0.02, 0.1)
    points = [random.uniform(0.1, 0.9, 2) * (width, height)]
    for _ in range(_SCRATCH_POINTS - 1):
        heading += random.normal(0, 0.4)
        points.append(points[-1] + step * np.array([np.cos(heading), np.sin(heading)]))
    canvas = Image.new("L", (width, height))
    thickness = max(1, round(side * random.uniform(0.003, 0.015)))
    ImageDraw.Draw(canvas).line([(x, y) for x, y in points], fill=255, width=thickness, joint="curve")
    return _float32(np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.5))) / 255)


def _moved(image: Pixels, random: np.random.Generator) -> Pixels:
    shifted = np.roll(image, random.integers(0, image.shape[1:]), (1, 2))
    return np.flip(shifted, int(random.integers(1, 3))) if random.random() < 0.5 else shifted  # noqa: PLR2004  half


def _turned(image: Pixels, random: np.random.Generator) -> Pixels:
    """Turned by 180° or mirrored, which any height and width permit."""
    axes = ((1,), (2,), (1, 2))[random.integers(3)]
    return np.flip(image, axes)


def _tint(image: Pixels, random: np.random.Generator) -> Pixels:
    colour = random.uniform(0.5, 1, (len(image), 1, 1)) if len(image) > 1 else np.ones(1)
    return image + _float32(random.uniform(*_CONTRAST) * random.choice([-1, 1]) * colour)


def _texture(image: Pixels, random: np.random.Generator) -> Pixels:
    cells = random.integers(4, 64)
    noise = Image.fromarray(random.random((cells, cells), np.float32)).resize(image.shape[:0:-1])
    return _float32(image * random.uniform(0.3, 0.8) + np.asarray(noise) * random.uniform(0.2, 0.7))


def _blur(image: Pixels, random: np.random.Generator) -> Pixels:
    height, width = image.shape[1:]
    cell = max(2, random.uniform(0.01, 0.04) * max(height, width))
    cells = max(1, round(width / cell)), max(1, round(height / cell))
    return np.stack(
        [
            np.asarray(Image.fromarray(channel).resize(cells, Image.Resampling.BOX).resize((width, height)))
            for channel in image
        ]
    )


def _grain(image: Pixels, random: np.random.Generator) -> Pixels:
    return image + _float32(random.normal(0, random.uniform(*_CONTRAST), image.shape))


def _float32(values: npt.NDArray[Any]) -> Pixels:
    return values.astype(np.float32)


_LOCAL: Final = (
    _Kind(_blob, _moved, foreign=True),
    _Kind(_blob, _tint),
    _Kind(_line, _tint),
    _Kind(_blob, _texture),
    _Kind(_blob, _blur),
    _Kind(_blob, _grain),
)
_SHAPE: Final = (_Kind(_blob, _turned, area=_LARGE_AREA),)
