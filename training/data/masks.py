"""Masks of true defects: images in which a defect is white, brought to the model's input like the images themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.inference.decisions.regions import Cells
from app.inference.errors import InferenceError
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec, unit_values
from training.data.decoding import MAX_PIXELS
from training.data.folders import NORMAL
from training.data.labelled_files import LabelledFile


class Masks(NamedTuple):
    """The masks of M test images.

    Attributes:
        masks: M masks (H, W), all false for normal images; None for anomalies without a readable mask.
        unreadable: mask files that cannot be read.
    """

    masks: tuple[Cells | None, ...]
    unreadable: tuple[Path, ...]

    def remarks(self) -> list[str]:
        """What was not read, as lines of text."""
        if not self.unreadable:
            return []
        return [f"{len(self.unreadable):,} masks of defects cannot be read, the first is {self.unreadable[0]}"]


def read_masks(files: Sequence[LabelledFile], spec: InputSpec) -> Masks:
    """The masks of test images, if there are any: all are None if no anomaly has one.

    Args:
        files: M test images.
        spec: size and fit of the model's input.
    """
    if not any(file.mask for file in files):
        return Masks((None,) * len(files), ())
    masks: list[Cells | None] = []
    unreadable = []
    for file in files:
        try:
            masks.append(read_mask(file.mask, spec) if file.mask else _nothing(spec) if file.kind == NORMAL else None)
        except (InferenceError, OSError):
            unreadable += [file.mask] if file.mask else []
            masks.append(None)
    return Masks(tuple(masks), tuple(unreadable))


def read_mask(path: Path, spec: InputSpec) -> Cells:
    """A mask (H, W) at the size of a model's input: true where more than half is white.

    White is the brightest value of the file: some data sets write 1 for it. What is thinner than half a pixel counts
    whole, if nothing else is left.

    Args:
        path: an image file of any size.
        spec: size and fit; the rest is that of masks.

    Raises:
        UnreadableImage, TooManyPixels: the file is no image, or too large.
        OSError: the file cannot be read.
    """
    return mask_of(path.read_bytes(), spec)


def mask_of(file: bytes, spec: InputSpec) -> Cells:
    """As :func:`read_mask`, of the content of a file."""
    grey = InputSpec(mode="L", height=spec.height, width=spec.width, fit=spec.fit, reduction="area")
    values: NDArray[np.float32] = unit_values(open_image(file, max_pixels=MAX_PIXELS).decode(grey).pixels)
    white = values[0].max()
    mask: Cells = values[0] > white / 2
    return mask


def _nothing(spec: InputSpec) -> Cells:
    return np.zeros((spec.height, spec.width), np.bool_)
