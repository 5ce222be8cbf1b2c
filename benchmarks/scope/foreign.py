"""Images that do not show the product: what a station's camera or software may send by mistake."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_digits

SIDE: Final = 480
"""Of the images, in pixels."""

_SKIN: Final = (224, 172, 138)
_FINGERS: Final = ((150, 90), (205, 55), (260, 50), (312, 80))  # tips (x, y); the thumb is drawn apart
_LINES: Final = (
    "File   Edit   View   Tools   Help",
    "C:\\STATION\\CAMERA_03> capture --next",
    "ERROR 0x80070057: the parameter is incorrect",
    "Exposure 12.5 ms    Gain 3.0 dB    FPS 30",
    "Last image: 2026-03-14 08:21:55   OK 1,204   NG 7",
    "Press F1 for help, Esc to cancel",
)

Pixels = NDArray[np.uint8]
"""(H, W, 3)."""


def foreign_images(seed: int = 0) -> Mapping[str, Pixels]:
    """One image of each kind, by name."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, SIDE)
    salted = random.random((SIDE, SIDE, 1))
    return {
        "black": _uniform(0),
        "white": _uniform(255),
        "grey": _uniform(128),
        "gradient": _grey(np.broadcast_to(ramp, (SIDE, SIDE))),
        "noise": _rounded(random.normal(128, 50, (SIDE, SIDE, 3))),
        "salt and pepper": _grey(np.where(salted[..., 0] < 1 / 2, 0, 255)),
        "digit": _digit(),
        "screenshot": _screenshot(),
        "hand": with_hand(_uniform(30)),
    }


def inverted(pixels: Pixels) -> Pixels:
    """The negative."""
    return np.uint8(255) - pixels


def with_hand(pixels: Pixels) -> Pixels:
    """A picture of any size with a hand before the lens: a palm, four fingers and a thumb, a little out of focus."""
    mask = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(mask)
    draw.ellipse((130, 190, 350, 440), fill=255)
    for x, y in _FINGERS:
        draw.line((x, y, 150 + (x - 150) * 1.1, 300), fill=255, width=48)
        draw.ellipse((x - 24, y - 24, x + 24, y + 24), fill=255)
    draw.line((400, 190, 300, 330), fill=255, width=54)
    draw.rectangle((170, 400, 310, SIDE), fill=255)
    light = Image.linear_gradient("L").resize((SIDE, SIDE)).rotate(90)
    shade = np.asarray(light, np.float64)[..., None] / 255 * 0.5 + 0.6
    skin = Image.fromarray(_rounded(shade * np.array(_SKIN)))
    picture = Image.fromarray(pixels).resize((SIDE, SIDE))
    picture.paste(skin, mask=mask.filter(ImageFilter.GaussianBlur(4)))
    return np.asarray(picture)


def _uniform(level: int) -> Pixels:
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def _grey(values: NDArray[np.float64]) -> Pixels:
    return np.repeat(_rounded(values)[..., None], 3, axis=2)


def _rounded(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _digit() -> Pixels:
    """A handwritten five, white on black."""
    digits = load_digits()
    five = digits.images[int(np.flatnonzero(digits.target == 5)[0])]  # noqa: PLR2004  the digit
    small = Image.fromarray(_rounded(five * (255 / 16)))
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB"))


def _screenshot() -> Pixels:
    """A window with a title bar, a menu and lines of text."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, SIDE, 26), fill=(0, 84, 166))
    draw.text((8, 7), "Inspection station 3", fill="white")
    for row in range(20):
        draw.text((12, 40 + 21 * row), _LINES[row % len(_LINES)], fill="black")
    draw.rectangle((330, 420, 460, 455), fill=(225, 225, 225), outline=(120, 120, 120))
    draw.text((375, 431), "OK", fill="black")
    return np.asarray(picture)
