"""The region of interest: the part of the images that counts, as a mask at the model's input size."""

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image
from PIL.ExifTags import Base as ExifTag

from app.inference.decisions.regions import Cells
from app.inference.errors import InferenceError
from app.inference.images.model_input import InputSpec
from training.data.masks import mask_of, read_mask
from training.errors import TrainingError

_LYING: Final = range(5, 9)  # EXIF orientations that exchange width and height
_SAMPLE: Final = 50
_PERCENT: Final = 100


class Rectangle(NamedTuple):
    """A rectangle in an image, in pixels, or in percent of its width and height."""

    left: float
    top: float
    width: float
    height: float
    in_percent: bool

    def in_pixels(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in an image of some width and height."""
        across, down = (side / _PERCENT if self.in_percent else 1 for side in size)
        right, bottom = self.left + self.width, self.top + self.height
        return round(self.left * across), round(self.top * down), round(right * across), round(bottom * down)


def read_interest(
    mask: Path | bytes | None, rectangle: Rectangle | None, files: Sequence[Path], spec: InputSpec
) -> Cells | None:
    """The region of interest (H, W) at the model's input size; None: everything counts.

    Args:
        mask: an image file of any size in which the region is white, or its content; it is brought to the input as the
            images are.
        rectangle: the region, instead of a mask.
        files: the normal images, whose size a rectangle in pixels refers to.
        spec: the model's input.

    Raises:
        TrainingError: the mask cannot be read, nothing or everything of it is white, or the rectangle does not fit.
    """
    if mask is None and rectangle is None:
        return None
    inside = _from_rectangle(rectangle, files, spec) if rectangle else _from_file(mask, spec) if mask else None
    if inside is None or not inside.any():
        raise TrainingError("the region of interest is empty: in the mask, what counts must be white")
    if inside.all():
        raise TrainingError("the region of interest is the whole image: leave --mask and --roi out")
    return inside


def _from_file(mask: Path | bytes, spec: InputSpec) -> Cells:
    if isinstance(mask, bytes):
        return mask_of(mask, spec)
    try:
        return read_mask(mask, spec)
    except (InferenceError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TrainingError(f"the mask {mask} cannot be read: {reason}") from error


def _from_rectangle(rectangle: Rectangle, files: Sequence[Path], spec: InputSpec) -> Cells:
    sizes = _sizes(files)
    if not sizes:
        raise TrainingError("--roi needs the size of the images, and none can be read")
    size, others = sizes[0], set(sizes[1:]) - {sizes[0]}
    if others and not rectangle.in_percent:
        other = min(others)
        raise TrainingError(
            f"--roi in pixels needs images of one size, and there are some of {size[0]}×{size[1]} and of "
            f"{other[0]}×{other[1]}: give it in percent, for example --roi 10%,10%,80%,80%"
        )
    left, top, right, bottom = box = rectangle.in_pixels(size)
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise TrainingError(
            f"--roi reaches from {left},{top} to {right},{bottom}, outside of images of {size[0]}×{size[1]}"
        )
    white = Image.new("L", size)
    white.paste(255, box)
    file = io.BytesIO()
    white.save(file, "PNG")
    return mask_of(file.getvalue(), spec)


def _sizes(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Width and height of a sample of image files, as a viewer shows them."""
    sizes = []
    for path in files[:: max(1, len(files) // _SAMPLE)]:
        with suppress(OSError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
            lies = image.format != "TIFF" and image.getexif().get(ExifTag.Orientation) in _LYING
            sizes.append(image.size[::-1] if lies else image.size)
    return sizes
