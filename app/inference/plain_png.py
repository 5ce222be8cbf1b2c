"""Small PNG files that hold nothing but their pixels, as crops and data sets mostly do.

Pillow reads them like every PNG, chunk by chunk through its registries, which takes twice as long as what has to be
done: check the chunks and hand the compressed rows to Pillow's own decoder. Whatever is not plain, or not quite right,
is left to Pillow, whose word counts.
"""

import struct
import threading
from typing import Final

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

_CHUNK: Final = struct.Struct(">I4s")  # length and kind; content and checksum follow
_CHECKSUM: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">IIBBBBB")
_BEGIN: Final = b"\x89PNG\r\n\x1a\n" + _CHUNK.pack(_HEADER.size, b"IHDR")
_END: Final = _CHUNK.pack(0, b"IEND") + _CHECKSUM.pack(isal_zlib.crc32(b"IEND"))
_PLAIN: Final = {(8, 0, 0, 0, 0): "L", (8, 2, 0, 0, 0): "RGB"}
"""Bit depth, colour type, compression, filter and interlace methods → Pillow's mode."""
_MAX_PIXELS: Final = 256 * 256


class _Canvas(threading.local):
    """A grey picture of a thread's own that Pillow's decoder paints on, which saves making one for each file.

    Pillow shares memory for grey pictures; colour ones it keeps in four bytes a pixel.
    """

    def __init__(self) -> None:
        self._size = (0, 0)

    def paint(self, size: tuple[int, int], rows: bytes) -> NDArray[np.uint8]:
        """(height, width) pixels from a PNG file's compressed rows; those that are missing are black."""
        if size != self._size:
            self._pixels = np.empty(size[::-1], dtype=np.uint8)
            self._image = Image.frombuffer("L", size, self._pixels, "raw", "L", 0, 1)
            self._size = size
        self._pixels.fill(0)  # nobody shall see another's picture
        self._image.frombytes(rows, "zip", "L", 0)
        return self._pixels.copy()


_canvas: Final = _Canvas()


def read_plain_png(data: bytes, *, max_pixels: int = _MAX_PIXELS) -> NDArray[np.uint8] | None:
    """The pixels of a PNG file of at most 65,536 pixels, 8-bit grey or colour, without any further chunk.

    Args:
        data: the whole file.
        max_pixels: the largest width × height that is accepted, where that is less.

    Returns:
        (H, W) grey or (H, W, 3) colour pixels; None for any other file, also for one that is damaged or large.
    """
    if not data.startswith(_BEGIN) or not data.endswith(_END):
        return None
    try:
        width, height, *methods = _HEADER.unpack_from(data, len(_BEGIN))
        mode = _PLAIN.get(tuple(methods))
        if mode is None or not 0 < width * height <= min(_MAX_PIXELS, max_pixels):
            return None
        header_end = len(_BEGIN) + _HEADER.size
        _check(data, len(_BEGIN) - len(b"IHDR"), header_end)
        rows = _rows(data, header_end + _CHECKSUM.size, len(data) - len(_END))
        if mode == "L":
            return _canvas.paint((width, height), rows)
        return np.asarray(Image.frombytes(mode, (width, height), rows, "zip", mode, 0))
    except (struct.error, ValueError):
        return None


def _rows(data: bytes, at: int, end: int) -> bytes:
    """The content of the chunks between two places, all of which have to be IDAT.

    Raises:
        ValueError: another chunk, or a damaged one.
    """
    pieces = []
    while at < end:
        length, kind = _CHUNK.unpack_from(data, at)
        begin = at + _CHUNK.size
        if kind != b"IDAT":
            raise ValueError(kind)
        _check(data, begin - len(kind), begin + length)
        pieces.append(data[begin : begin + length])
        at = begin + length + _CHECKSUM.size
    return b"".join(pieces)


def _check(data: bytes, begin: int, end: int) -> None:
    """Compares a chunk's checksum with its kind and content, which it follows.

    Raises:
        ValueError: they differ.
        struct.error: the file ends before.
    """
    if _CHECKSUM.unpack_from(data, end)[0] != isal_zlib.crc32(data[begin:end]):
        raise ValueError("damaged")
