"""A fast reader for small PNG files that hold nothing but their pixels, as crops and data sets mostly do.

Pillow reads each PNG alone, chunk by chunk. For many files at once less than half of that work is enough: check the
chunks, inflate the rows with ISA-L, and pass the rows of all files of one size to Pillow's decoder as one tall image.
Every other file, damaged ones included, is left to Pillow, whose result counts.
"""

import struct
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

_CHUNK: Final = struct.Struct(">I4s")  # length and kind; content and checksum follow
_CHECKSUM: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">IIBBBBB")
_STORED: Final = struct.Struct("<2sBHH")
_BEGIN: Final = b"\x89PNG\r\n\x1a\n" + _CHUNK.pack(_HEADER.size, b"IHDR")
_HEAD_BYTES: Final = len(_BEGIN) + _HEADER.size + _CHECKSUM.size
_END: Final = _CHUNK.pack(0, b"IEND") + _CHECKSUM.pack(isal_zlib.crc32(b"IEND"))
_PLAIN: Final = {(8, 0, 0, 0, 0): ("L", 1), (8, 2, 0, 0, 0): ("RGB", 3)}
"""Bit depth, colour type, compression, filter and interlace methods → Pillow's mode, bytes per pixel."""
_LARGEST_WINDOW: Final = b"\x78"  # of what a zlib stream may begin with; ISA-L does not mind others
_STORED_MOST: Final = 2**16 - 1


class _Layout(NamedTuple):
    """What a file's header says of its rows, each of which has a byte for its filter in front.

    Attributes:
        at_once: how many such images are painted together.
    """

    mode: str
    pixel_bytes: int
    width: int
    height: int
    row_bytes: int
    at_once: int


def read_plain_pngs(files: Sequence[bytes], *, max_pixels: int) -> list[NDArray[np.uint8] | None]:
    """The pixels of small PNG files, less than 64 KiB of them each, 8-bit grey or colour, without any further chunk.

    Args:
        files: each the whole file.
        max_pixels: the largest width × height that is accepted.

    Returns:
        For each, (C, H, W) 8-bit levels; None for any other file, also for one that is damaged or large.
    """
    alike: defaultdict[_Layout, list[int]] = defaultdict(list)
    for index, data in enumerate(files):
        layout = _layout(data[:_HEAD_BYTES])
        if layout is not None and layout.width * layout.height <= max_pixels:
            alike[layout].append(index)
    images: list[NDArray[np.uint8] | None] = [None] * len(files)
    for layout, indices in alike.items():
        for begin in range(0, len(indices), layout.at_once):
            some = indices[begin : begin + layout.at_once]
            for index, image in zip(some, _images(layout, [files[index] for index in some]), strict=True):
                images[index] = image
    return images


@lru_cache(maxsize=256)
def _layout(head: bytes) -> _Layout | None:
    """What a file that begins so looks like, if it is a plain one."""
    if len(head) < _HEAD_BYTES or not head.startswith(_BEGIN):
        return None
    width, height, *methods = _HEADER.unpack_from(head, len(_BEGIN))
    plain = _PLAIN.get(tuple(methods))
    if (
        plain is None
        or width * height == 0
        or not _is_whole(head, len(_BEGIN) - len(b"IHDR"), len(_BEGIN) + _HEADER.size)
    ):
        return None
    mode, pixel_bytes = plain
    row_bytes = 1 + width * pixel_bytes
    at_once = _STORED_MOST // (row_bytes * (1 + height))
    return _Layout(mode, pixel_bytes, width, height, row_bytes, at_once) if at_once else None


def _images(layout: _Layout, files: Sequence[bytes]) -> list[NDArray[np.uint8] | None]:
    rows = [_rows(data, layout) for data in files]
    try:
        painted = iter(_paint(layout, [each for each in rows if each is not None]))
    except ValueError:  # one of them has a filter that does not exist
        return [None] if len(files) == 1 else [_images(layout, [data])[0] for data in files]
    return [None if each is None else next(painted) for each in rows]


def _paint(layout: _Layout, images: Sequence[bytes]) -> NDArray[np.uint8]:
    """(N, C, H, W) 8-bit levels from the rows of N images.

    A row's filter may refer to the row above, and above an image's first row are zeros: an empty row parts them.

    Raises:
        ValueError: Pillow does not know a row's filter.
    """
    height = 1 + layout.height
    rows = bytes(layout.row_bytes).join((*images, b""))
    size = (layout.width, height * len(images))
    image = Image.frombytes(layout.mode, size, _stored(rows), "zip", layout.mode, 0)
    shape = (len(images), height, layout.width, layout.pixel_bytes)
    pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(shape)[:, : layout.height]
    return pixels.transpose(0, 3, 1, 2)


def _stored(content: bytes) -> bytes:
    """A zlib stream of one block that is not compressed (RFC 1950; RFC 1951, 3.2.4): at most 65,535 bytes."""
    size = len(content)
    begin = _STORED.pack(b"\x78\x01", 1, size, size ^ _STORED_MOST)
    return begin + content + _CHECKSUM.pack(isal_zlib.adler32(content))


def _rows(data: bytes, layout: _Layout) -> bytes | None:
    """A file's inflated rows; None if it has other chunks than for them, if something is damaged or missing."""
    at, end = _HEAD_BYTES, len(data) - len(_END)
    if not data.endswith(_END):
        return None
    pieces = []
    while at < end:
        length, kind = _CHUNK.unpack_from(data, at)
        begin = at + _CHUNK.size
        at = begin + length + _CHECKSUM.size
        if kind != b"IDAT" or at > end or not _is_whole(data, begin - len(kind), begin + length):
            return None
        pieces.append(data[begin : begin + length])
    compressed = b"".join(pieces)
    if compressed[:1] > _LARGEST_WINDOW:
        return None
    size = layout.row_bytes * layout.height
    stream = isal_zlib.decompressobj()
    try:
        rows: bytes = stream.decompress(compressed, size + 1)
    except isal_zlib.error:  # type: ignore[misc]  # its stub calls the class an exception
        return None
    return rows if stream.eof and len(rows) == size else None


def _is_whole(data: bytes, begin: int, end: int) -> bool:
    """Whether a chunk's checksum, which follows, is that of its kind and content."""
    return bool(_CHECKSUM.unpack_from(data, end)[0] == isal_zlib.crc32(data[begin:end]))
