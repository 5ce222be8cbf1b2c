"""Photographs: one with the statistics of natural images that is computed, or those of a folder."""

import io
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.files import formats
from benchmarks.errors import BenchmarkError

_MOST: Final = 5  # images of a folder
_CONTRAST: Final = 45  # standard deviation of the brightness, in levels
_COLOUR: Final = 8  # of the differences of red, green and blue to it
_NOISE: Final = 1.0  # of a sensor at low sensitivity, after the camera's own filter
_FALL: Final = 1.2  # the exponent of the frequency
_SHARPNESS: Final = 0.3  # the frequency, in cycles per pixel, to which lens and sensor transmit 37 %
_JPEG_QUALITY: Final = 90
_WEBP_QUALITY: Final = 80


def photographs(width: int, height: int, folder: Path | None) -> list[Image.Image]:
    """RGB images of a size: the first few of a folder, cropped and resampled; without a folder, a computed one.

    Raises:
        BenchmarkError: the folder has no images.
    """
    if folder is None:
        return [photograph(width, height)]
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in formats.SUFFIXES]
    if not files:
        raise BenchmarkError(f"{folder} has no images")
    return [_fitted(file, (width, height)) for file in files[:_MOST]]


def _fitted(file: Path, size: tuple[int, int]) -> Image.Image:
    with Image.open(file) as image:
        return ImageOps.fit(image.convert("RGB"), size)


def photograph(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """An RGB image whose amplitudes fall with the spatial frequency, as in photographs, with the noise of a sensor.

    Files of it are about as large as those of photographs: a JPEG file takes 2 bits per pixel, a PNG file 13.

    Source: D. J. Field, "Relations between the statistics of natural images and the response properties of cortical
    cells", Journal of the Optical Society of America A 4 (1987).
    """
    random = np.random.default_rng(seed)
    brightness = _CONTRAST * _natural(width, height, random)
    pixels = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        values = brightness + _COLOUR * _natural(width, height, random)
        values += random.normal(128, _NOISE, values.shape).astype(np.float32)
        pixels[..., channel] = values.clip(0, 255)
    return Image.fromarray(pixels)


def _natural(width: int, height: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(height, width): mean 0, standard deviation 1."""
    spectrum = np.fft.rfft2(random.standard_normal((height, width), dtype=np.float32))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf  # no mean
    spectrum *= np.exp(-np.square(frequency / _SHARPNESS)) / frequency**_FALL
    values = np.fft.irfft2(spectrum, (height, width))
    return np.asarray(values / values.std(), np.float32)


def encoded(image: Image.Image, file_format: str) -> bytes:
    """A file of an image."""
    buffer = io.BytesIO()
    quality = {"JPEG": {"quality": _JPEG_QUALITY}, "WEBP": {"quality": _WEBP_QUALITY}}
    image.save(buffer, file_format, **quality.get(file_format, {}))
    return buffer.getvalue()
