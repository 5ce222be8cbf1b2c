"""Decoding to a model's input, against Pillow. Both run in turn in this process, timed by processor time."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.inference.images.decoding import decode
from app.inference.images.model_input import InputSpec
from benchmarks.errors import BenchmarkError
from benchmarks.images.photographs import encoded, photographs
from benchmarks.table import Line, ratio

_SIDE: Final = 256
_SPEC: Final = InputSpec(mode="RGB", height=_SIDE, width=_SIDE, reduction="area", jpeg="scaled")
_MAX_PIXELS: Final = 25_000_000
_CASES: Final = (
    (4000, 3000, "JPEG", 3.5),
    (1920, 1080, "JPEG", 2.0),
    (640, 480, "JPEG", 0.9),
    (1920, 1080, "PNG", 1.8),
    (640, 480, "PNG", 1.8),
    (1920, 1080, "WEBP", 0.9),
)
"""Width, height, format, and the goal for Pillow's time ÷ ours. 0.9: not slower, but for noise."""
_TOLERANCE: Final = 4.0  # mean difference in levels; JPEG at a fraction of its size is a little sharper

_Decoder = Callable[[bytes], NDArray[Any]]


def measure(rounds: int, folder: Path | None) -> list[Line]:
    """A line for each kind of file: milliseconds per image and Pillow's time ÷ ours, with two ways to resize.

    Args:
        rounds: in each, every decoder decodes every file.
        folder: of photographs; None: a computed one.

    Raises:
        BenchmarkError: a decoder gave another image than Pillow.
    """
    lines = []
    for width, height, file_format, goal in _CASES:
        files = [encoded(image, file_format) for image in photographs(width, height, folder)]
        bits = 8 * sum(map(len, files)) / (len(files) * width * height)
        name = f"{width} × {height} {file_format}, {bits:.2g} bits per pixel"
        _check(name, files)
        same = [(_milliseconds(_reduced, files), _milliseconds(_ours, files)) for _ in range(rounds)]
        plain = [(_milliseconds(_resized, files), _milliseconds(_ours, files)) for _ in range(rounds)]
        lines += [
            _speedup(f"{name}: ms, Pillow and the same reduction ÷ ours", same, goal),
            _speedup(f"{name}: ms, Pillow and its default filter ÷ ours", plain, goal),
        ]
        print(f"{name:45} {lines[-2].value:6.2f} {lines[-1].value:6.2f}", flush=True)
    return lines


def _speedup(measure: str, pairs: Sequence[tuple[float, float]], goal: float) -> Line:
    """From pairs of Pillow's time and ours."""
    pillow, ours = map(median, zip(*pairs, strict=True))
    return replace(ratio(measure, pairs, goal), ours=ours, other=pillow)


def _ours(file: bytes) -> NDArray[Any]:
    return np.moveaxis(decode(file, _SPEC, max_pixels=_MAX_PIXELS).pixels, 0, -1)


def _reduced(file: bytes) -> NDArray[Any]:
    """As our reduction of larger images, after a decoding in full."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=1.0))


def _resized(file: bytes) -> NDArray[Any]:
    """As most programs do it."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE)))


def _milliseconds(decoder: _Decoder, files: Sequence[bytes]) -> float:
    began = time.process_time()
    for file in files:
        decoder(file)
    return (time.process_time() - began) * 1000 / len(files)


def _check(name: str, files: Sequence[bytes]) -> None:
    for file in files:
        difference = np.abs(_ours(file).astype(np.float32) - _reduced(file)).mean()
        if difference > (_TOLERANCE if file.startswith(b"\xff\xd8") else 0):
            raise BenchmarkError(f"{name}: differs from Pillow's result by {difference:.1f} levels on average")
