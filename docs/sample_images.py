"""Makes the sample images of the page: ``python docs/sample_images.py`` writes app/api/static/samples/.

The digits are drawn for this project: strokes as points in the unit square, smoothed, in the framing of MNIST digits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Point = tuple[float, float]
Strokes = Sequence[Sequence[Point]]

FOLDER: Final = Path(__file__).resolve().parent.parent / "app" / "api" / "static" / "samples"
SIDE: Final = 112  # pixels
OVERSAMPLING: Final = 8  # factor at which strokes are drawn before they are reduced
FRAME: Final = 20 / 28  # part of the side that the digit fills
PEN: Final = 2.4 / 28  # stroke width as a part of the side

FIVE: Final[Strokes] = [
    [(0.70, 0.12), (0.52, 0.13), (0.36, 0.15)],
    [(0.36, 0.15), (0.33, 0.30), (0.31, 0.45), (0.45, 0.40), (0.62, 0.45), (0.71, 0.60), (0.65, 0.78), (0.48, 0.88),
     (0.26, 0.83)],
]  # fmt: skip
SAMPLES: Final[dict[str, Strokes]] = {
    "five": FIVE,
    "another-five": [
        [(0.80, 0.16), (0.66, 0.15), (0.47, 0.19), (0.42, 0.32), (0.37, 0.46), (0.50, 0.44), (0.60, 0.53), (0.59, 0.69),
         (0.45, 0.83), (0.22, 0.86), (0.16, 0.79)],
    ],
    "three": [
        [(0.30, 0.20), (0.45, 0.11), (0.64, 0.16), (0.66, 0.32), (0.46, 0.46), (0.66, 0.55), (0.70, 0.72), (0.55, 0.87),
         (0.36, 0.87), (0.26, 0.76)],
    ],
    "seven": [
        [(0.24, 0.18), (0.45, 0.17), (0.74, 0.15), (0.62, 0.40), (0.50, 0.65), (0.44, 0.90)],
        [(0.40, 0.53), (0.68, 0.50)],
    ],
    "lying-five": [[(1 - y, x) for x, y in stroke] for stroke in FIVE],
}  # fmt: skip


def smooth(stroke: Sequence[Point], steps: int = 24) -> NDArray[np.float64]:
    """A Catmull-Rom curve through the points, shape (steps x segments, 2)."""
    points = np.array([stroke[0], *stroke, stroke[-1]])
    t = np.linspace(0, 1, steps)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(points, points[1:], points[2:], points[3:], strict=False)
    ]
    return np.concatenate(pieces)


def draw(strokes: Strokes) -> Image.Image:
    """White on black: the bounding box of the strokes fits the frame, the centre of mass is in the middle."""
    curves = [smooth(stroke) for stroke in strokes]
    low = np.min([curve.min(axis=0) for curve in curves], axis=0)
    high = np.max([curve.max(axis=0) for curve in curves], axis=0)
    scale = (FRAME - PEN) / (high - low).max()
    framed = [0.5 + (curve - (low + high) / 2) * scale for curve in curves]
    offset = 0.5 - _centre_of_mass(_render(framed))
    return _render([curve + offset for curve in framed])


def _render(curves: Sequence[NDArray[np.float64]]) -> Image.Image:
    size = SIDE * OVERSAMPLING
    radius = PEN * size / 2
    image = Image.new("L", (size, size))
    canvas = ImageDraw.Draw(image)
    for curve in curves:
        for (x, y), (to_x, to_y) in zip(curve * size, curve[1:] * size, strict=False):
            canvas.line((x, y, to_x, to_y), fill=255, width=round(2 * radius))
        for x, y in curve * size:
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def _centre_of_mass(image: Image.Image) -> NDArray[np.float64]:
    intensity = np.asarray(image, dtype=np.float64)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    return np.array([(columns * intensity).sum(), (rows * intensity).sum()]) / intensity.sum() / SIDE


def main() -> None:
    """Writes all samples."""
    FOLDER.mkdir(exist_ok=True)
    noise = np.random.default_rng(5).integers(0, 256, (28, 28), dtype=np.uint8)
    images = {name: draw(strokes) for name, strokes in SAMPLES.items()}
    images["noise"] = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    for name, image in images.items():
        image.save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
