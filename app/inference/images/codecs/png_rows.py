"""The rows of PNG files: decodes them with kornia-rs, or inflates them with ISA-L for many images at once.

kornia-rs, whose decoder is written in Rust, takes a third of Pillow's time for photographs; unlike libpng and libspng,
also for grey ones. Sections refer to the PNG specification, third edition.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from isal import isal_zlib
from kornia_rs import io as kornia
from numpy.typing import NDArray

CHUNK: Final = struct.Struct(">I4s")
"""The beginning of a chunk: length and type; data and checksum follow (5.3)."""
CHECKSUM: Final = struct.Struct(">I")
HEADER: Final = struct.Struct(">IIBBBBB")
"""The first chunk's data (11.2.1): width, height, bit depth, colour type, methods of compression, filter, interlace."""
BEGIN: Final = b"\x89PNG\r\n\x1a\n" + CHUNK.pack(HEADER.size, b"IHDR")
HEAD_BYTES: Final = len(BEGIN) + HEADER.size + CHECKSUM.size
END: Final = CHUNK.pack(0, b"IEND") + CHECKSUM.pack(isal_zlib.crc32(b"IEND"))
MAX_STORED: Final = 2**16 - 1
"""The largest uncompressed block of a deflated stream, in bytes (RFC 1951, 3.2.4)."""

_STORED: Final = struct.Struct("<2sBHH")  # zlib header; whether it is the last block, its size and the complement of it
_ZLIB_HEAD: Final = b"\x78\x01"
_LARGEST_WINDOW: Final = b"\x78"  # the highest valid first byte of a zlib stream; ISA-L does not check it
_LAYOUTS: Final = {0: ("mono", 1), 2: ("rgb", 3), 6: ("rgba", 4)}


class Layout(NamedTuple):
    """The layout of the rows of an image of 8 bits per channel, not interlaced.

    Attributes:
        width: in pixels.
        height: in pixels.
        colour: PNG's colour type: 0 grey, 2 RGB, 6 RGB with alpha.
        channels: 1, 3 or 4.
    """

    width: int
    height: int
    colour: int
    channels: int

    @classmethod
    def of(cls, head: bytes) -> "Layout | None":
        """The layout of a file with these first ``HEAD_BYTES`` bytes; None if it has another, or they are damaged."""
        if len(head) < HEAD_BYTES or not head.startswith(BEGIN):
            return None
        width, height, depth, colour, *methods = HEADER.unpack_from(head, len(BEGIN))
        if depth != 8 or colour not in _LAYOUTS or any(methods) or width * height == 0:  # noqa: PLR2004  bits
            return None
        if not checksum_matches(head, len(BEGIN) - len(b"IHDR"), len(BEGIN) + HEADER.size):
            return None
        return cls(width, height, colour, _LAYOUTS[colour][1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, including its filter type."""
        return 1 + self.width * self.channels


def checksum_matches(data: bytes, begin: int, end: int) -> bool:
    """Whether the checksum at ``end`` is that of the chunk's type and data, from ``begin`` to ``end``."""
    return bool(CHECKSUM.unpack_from(data, end)[0] == isal_zlib.crc32(memoryview(data)[begin:end]))


def inflate(layout: Layout, pieces: Sequence[bytes]) -> bytes | None:
    """The filtered rows of an image; None if the data are damaged, incomplete or too long.

    Args:
        layout: of the rows.
        pieces: the data of the chunks IDAT.
    """
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


def decode(layout: Layout, pieces: bytes | memoryview) -> NDArray[np.uint8]:
    """(H, W, C) 8-bit levels from chunks IDAT.

    Nothing but these reaches the decoder. It compares their checksums, and inflates no more than the image has.

    Raises:
        ValueError: they are damaged or incomplete, or a row has an invalid filter type.
    """
    header = HEADER.pack(layout.width, layout.height, 8, layout.colour, 0, 0, 0)
    head = BEGIN + header + CHECKSUM.pack(isal_zlib.crc32(b"IHDR" + header))
    mode, _ = _LAYOUTS[layout.colour]
    try:
        pixels: NDArray[np.uint8] = kornia.decode_image_png_u8(b"".join((head, pieces, END)), layout[1::-1], mode)
    except Exception as error:  # it raises nothing more specific
        raise ValueError("the rows of the PNG file are damaged") from error
    return pixels


def unfilter(layout: Layout, rows: bytes) -> NDArray[np.uint8]:
    """(H, W, C) 8-bit levels from filtered rows of at most ``MAX_STORED`` bytes.

    Raises:
        ValueError: a row has an invalid filter type.
    """
    size = len(rows)
    block = _STORED.pack(_ZLIB_HEAD, 1, size, size ^ MAX_STORED)
    content = b"".join((b"IDAT", block, rows, CHECKSUM.pack(isal_zlib.adler32(rows))))
    length = CHECKSUM.pack(len(content) - len(b"IDAT"))
    return decode(layout, length + content + CHECKSUM.pack(isal_zlib.crc32(content)))
