"""PNG files: decodes the usual kinds about twice as fast as Pillow, which decodes the others."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL import ImageFile as PillowFile

from app.inference.images import png_rows
from app.inference.images.png_rows import CHECKSUM, CHUNK, END, HEAD_BYTES, Layout

_MAX_PIECES: Final = 10_000  # of pixels; encoders write some of 8 KiB or larger


def load(image: PillowFile.ImageFile, data: bytes) -> None:
    """Decodes the pixels of an image that Pillow opened, in place of its method ``load``, with the same result.

    Fast are images of 8 bits per channel: grey, RGB, and RGB with alpha; not animated or interlaced; whose pixels are
    complete, undamaged, and the last chunks of the file.

    Raises:
        Exception: any that Pillow raises for a damaged file.
    """
    pixels = None if getattr(image, "is_animated", False) else read_pixels(data)
    if pixels is not None:
        image.im = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).im
        image.tile = []
    image.load()


def read_pixels(data: bytes) -> NDArray[np.uint8] | None:
    """(H, W, C) 8-bit levels of a file; None if Pillow must decode it, or say what is wrong."""
    layout = Layout.of(data[:HEAD_BYTES])
    pieces = layout and _pieces(data)
    if not layout or not pieces:
        return None
    rows = png_rows.inflate(layout, pieces)
    del pieces  # a copy of the file
    try:
        return None if rows is None else png_rows.unfilter(layout, rows)
    except ValueError:
        return None


def _pieces(data: bytes) -> list[bytes] | None:
    """The data of the chunks IDAT; None if they are damaged, or not followed by the end."""
    at = HEAD_BYTES
    pieces: list[bytes] = []
    while at + CHUNK.size <= len(data) and len(pieces) < _MAX_PIECES:
        length, kind = CHUNK.unpack_from(data, at)
        begin = at + CHUNK.size
        end = begin + length
        if kind == b"IDAT":
            if end + CHECKSUM.size > len(data) or not png_rows.checksum_matches(data, begin - len(kind), end):
                return None
            pieces.append(data[begin:end])
        elif pieces:
            return pieces if data.startswith(END, at) else None
        at = end + CHECKSUM.size
    return None
