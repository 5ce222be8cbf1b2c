"""Draws boxes on an image at its own size. Needs Pillow, which nothing else of the client does."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL import Image

    from app.client.responses import Box

_COLOUR: Final = (0, 229, 255)  # as in the service's pictures
_LINE_SHARE: Final = 1 / 300  # of the longer side


class NotDrawable(ValueError):
    """Pillow is not installed, or cannot read the image; the service may be able to."""


def draw_boxes(file: bytes, boxes: "Sequence[Box]") -> bytes:
    """A PNG file of an image, turned upright, with boxes drawn on it.

    Args:
        file: the image file.
        boxes: x, y, width and height in pixels of the upright image; their lines are drawn inside.

    Raises:
        NotDrawable: see there.
    """
    try:
        from PIL import Image, ImageDraw, ImageOps  # noqa: PLC0415  the rest of the client works without

        with Image.open(io.BytesIO(file)) as opened:
            image = _in_colour(ImageOps.exif_transpose(opened))
    except Exception as error:  # Pillow raises almost anything for files that it cannot read
        raise NotDrawable(str(error)) from error
    draw, thick = ImageDraw.Draw(image), max(1, round(max(image.size) * _LINE_SHARE)) - 1
    for left, top, width, height in boxes:
        right, bottom = left + width - 1, top + height - 1
        for line in (  # Pillow's outline of a rectangle of one pixel has two
            (left, top, right, min(top + thick, bottom)),
            (left, max(bottom - thick, top), right, bottom),
            (left, top, min(left + thick, right), bottom),
            (max(right - thick, left), top, right, bottom),
        ):
            draw.rectangle(line, fill=_COLOUR)
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


def _in_colour(image: "Image.Image") -> "Image.Image":
    """An RGB image. Pillow would clip values of more than 8 bits: they are scaled to the range that they use."""
    if image.mode.startswith(("I", "F")):
        lowest, highest = image.getextrema()
        if not isinstance(lowest, (int, float)) or not isinstance(highest, (int, float)):
            raise NotDrawable(f"images of mode {image.mode} have no range")
        scale = 255 / ((highest - lowest) or 1)
        image = image.convert("F").point(lambda value: value * scale - lowest * scale)
        return image.convert("L").convert("RGB")
    return image.convert("RGB")
