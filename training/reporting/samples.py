"""Sample images of a version: a few normal ones and one anomaly of each kind, which the page offers to try.

They are typical: of middle scores, whether or not the model is right about them. They lie in the report as
``report/sample-NN-KIND.png``, ``NN`` counting from 01.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
from PIL import Image, ImageOps

from app.inference.images.rendering import to_image
from training.data.datasets import Dataset
from training.data.folders import NORMAL

_PREFIX: Final = "report/sample-"
_NORMAL_QUANTILES: Final = (0.25, 0.5, 0.75)
_KINDS: Final = 5
_LONGEST_SIDE: Final = 512  # pixels; enough to see a defect, and a bundle stays small
_PLAIN_MODE: Final = {"1": "L", "L": "L", "LA": "LA", "P": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
"""Modes of 8 bits → the mode that they are saved in."""

_MAX_KIND: Final = 40


def is_sample(name: str) -> bool:
    """Whether a file of a bundle is a sample image."""
    return name.startswith(_PREFIX)


class _Sample(NamedTuple):
    kind: str
    file: Path | None
    image: torch.Tensor


def sample_images(
    data: Dataset, folder: Path, calibrating: Sequence[int], scores: Sequence[float], test_scores: Sequence[float]
) -> dict[str, bytes]:
    """PNG files by their names in the bundle.

    Args:
        data: the images.
        folder: what the names of its files are relative to.
        calibrating: positions of calibration images, which stand in for test images that are normal.
        scores: of these.
        test_scores: of the test images.
    """
    chosen = [*_normal(data, folder, calibrating, scores, test_scores), *_anomalies(data, folder, test_scores)]
    return {
        f"{_PREFIX}{number:02d}-{_plain(sample.kind)}.png": _png(sample)
        for number, sample in enumerate(chosen, start=1)
    }


def _normal(
    data: Dataset, folder: Path, calibrating: Sequence[int], scores: Sequence[float], test_scores: Sequence[float]
) -> list[_Sample]:
    in_test = [position for position, kind in enumerate(data.test_kinds) if kind == NORMAL]
    if in_test:
        ranked = sorted(in_test, key=test_scores.__getitem__)
        return [_of_test(data, folder, position) for position in _spread(ranked)]
    ranked = [position for _, position in sorted(zip(scores, calibrating, strict=True))]
    return [
        _Sample(NORMAL, folder / data.normal_files[position] if data.normal_files else None, data.normal[position])
        for position in _spread(ranked)
    ]


def _anomalies(data: Dataset, folder: Path, test_scores: Sequence[float]) -> list[_Sample]:
    samples = []
    for kind in sorted(set(data.test_kinds) - {NORMAL})[:_KINDS]:
        ranked = sorted((i for i, each in enumerate(data.test_kinds) if each == kind), key=test_scores.__getitem__)
        samples.append(_of_test(data, folder, ranked[len(ranked) // 2]))
    return samples


def _of_test(data: Dataset, folder: Path, position: int) -> _Sample:
    file = folder / data.test_files[position] if data.test_files else None
    return _Sample(data.test_kinds[position], file, data.test[position])


def _spread(ranked: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(ranked[int(share * (len(ranked) - 1))] for share in _NORMAL_QUANTILES))


def _plain(kind: str) -> str:
    """The kind as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", kind).strip("-")[:_MAX_KIND] or "anomaly"


def _png(sample: _Sample) -> bytes:
    buffer = io.BytesIO()
    (_original(sample.file) or to_image(sample.image)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _original(file: Path | None) -> Image.Image | None:
    """The file's image, upright and not too large; None if it has more than 8 bits or cannot be read a second time."""
    try:
        with Image.open(file or "") as image:
            if image.mode not in _PLAIN_MODE:
                return None
            upright = ImageOps.exif_transpose(image).convert(_PLAIN_MODE[image.mode])
            upright.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
            return upright
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
