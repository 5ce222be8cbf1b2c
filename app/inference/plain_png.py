"""Small PNG files that hold nothing but their pixels, as crops and data sets mostly do.

Pillow reads them like every PNG, chunk by chunk through its registries, which takes twice as long as what has to be
done: check the chunks and hand the compressed rows to Pillow's own decoder. Whatever is not plain, or not quite right,
is left to Pillow, whose word counts.
"""

import struct
import zlib
from typing import Final

from PIL import Image

_CHUNK: Final = struct.Struct(">I4s")  # length and kind; content and checksum follow
_CHECKSUM: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">IIBBBBB")
_BEGIN: Final = b"\x89PNG\r\n\x1a\n" + _CHUNK.pack(_HEADER.size, b"IHDR")
_END: Final = _CHUNK.pack(0, b"IEND") + _CHECKSUM.pack(zlib.crc32(b"IEND"))
_PLAIN: Final = {(8, 0, 0, 0, 0): "L", (8, 2, 0, 0, 0): "RGB"}
"""Bit depth, colour type, compression, filter and interlace methods → Pillow's mode."""
_MAX_PIXELS: Final = 256 * 256


def read_plain_png(data: bytes, *, max_pixels: int = _MAX_PIXELS) -> Image.Image | None:
    """The picture of a PNG file of at most 65,536 pixels, 8-bit grey or colour, without any further chunk.

    Args:
        data: the whole file.
        max_pixels: the largest width × height that is accepted, where that is less.

    Returns:
        The picture with its pixels, in mode L or RGB; None for any other file, also for one that is damaged or large.
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
        return Image.frombytes(mode, (width, height), rows, "zip", mode, 0)
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
    if _CHECKSUM.unpack_from(data, end)[0] != zlib.crc32(memoryview(data)[begin:end]):
        raise ValueError("damaged")
