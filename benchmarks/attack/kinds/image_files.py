"""Image files that cost far more than their size."""

import io
import struct
import zlib
from functools import cache
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.reliability import image

_MIB: Final = 2**20
_RLE8: Final = 1
_START_OF_SCAN: Final = b"\xff\xda"
_ONE_PIXEL_THEN_END_OF_LINE: Final = b"\1\1\0\0"


def jpeg_with_segments(count: int, size: int = 33) -> bytes:
    """A small JPEG after ``count`` APP1 "Exif" segments of ``size`` bytes, which a parser may join one by one."""
    content = b"Exif\0\0".ljust(size - 4, b"a")
    segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    return b"\xff\xd8" + segment * count + image(28, "JPEG")[2:]


def jpeg_with_scans(count: int, width: int = 5000, height: int = 4900) -> bytes:
    """A flat progressive JPEG with ``count`` scans, each of which visits all blocks. The last is repeated: 40 bytes."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 100, 110)).save(file, "JPEG", progressive=True, quality=90, subsampling=0)
    content = file.getvalue()
    scan = content[content.rindex(_START_OF_SCAN) : -2]
    return content[:-2] + scan * (count - content.count(_START_OF_SCAN)) + content[-2:]


def png_with_profiles(count: int, inflated: int = _MIB) -> bytes:
    """A small PNG with ``count`` iCCP chunks that each inflate to almost ``inflated`` bytes."""
    return _png_with_chunks(b"iCCP", b"p\0\0" + zlib.compress(bytes(inflated - 1), 9), count)


def png_with_texts(count: int, inflated: int = _MIB) -> bytes:
    """A small PNG with ``count`` zTXt chunks that each inflate to ``inflated`` bytes."""
    return _png_with_chunks(b"zTXt", b"k\0\0" + zlib.compress(bytes(inflated - 1), 9), count)


def rle_bmp(width: int = 25_000_000) -> bytes:
    """A BMP of one row: one pixel and an end of line, after which a decoder in Python appends the row byte by byte."""
    header = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, _RLE8, 4, 0, 0, 256, 0)
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    offset = 14 + len(header) + len(palette)
    file_head = b"BM" + struct.pack("<IHHI", offset + 4, 0, 0, offset)
    return file_head + header + palette + _ONE_PIXEL_THEN_END_OF_LINE


@cache
def noise_png(side: int) -> bytes:
    """A square grey PNG of noise with 7 bits per pixel, which hardly compresses and decodes slowly."""
    pixels = np.random.default_rng(0).integers(0, 128, (side, side + 1), dtype=np.uint8)
    pixels[:, 0] = 0  # each row begins with the number of its filter
    packer = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return _SIGNATURE + header + _chunk(b"IDAT", packer.compress(pixels.tobytes()) + packer.flush()) + _END


def multipart(files: list[bytes], name: str = "a.png") -> tuple[bytes, str]:
    """The body and the content type of a form with image files."""
    part = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return b"".join(part + file + b"\r\n" for file in files) + b"--b--\r\n", "multipart/form-data; boundary=b"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_with_chunks(kind: bytes, content: bytes, count: int) -> bytes:
    small = image(28)
    header_end = len(_SIGNATURE) + 25
    return small[:header_end] + _chunk(kind, content) * count + small[header_end:]


_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = _chunk(b"IEND", b"")
