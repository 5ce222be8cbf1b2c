"""Limits on the parts of image files, checked before any parser reads them.

Parsers do something for every segment, chunk, block, tag or box, some of them in Python, and some take more time for
each than for the one before. A file can have millions of them. Here they are counted, in one pass that stops at the
limit and keeps nothing. The limits are far above what cameras and editors write: dozens of segments, a few megabytes of
profiles, previews and descriptions, and pixels in thousands of pieces.

Damaged files pass: their parsers say what is wrong.
"""

import re
import struct
from typing import Final

from app.inference.errors import UnreadableImage
from app.inference.images.codecs.boxes import boxes

MAX_PARTS: Final = 10_000  # of metadata, in files of every format
MAX_BYTES: Final = 16 * 2**20  # of metadata
MAX_PIECES: Final = 500_000  # of pixels: chunks, blocks, strips or tiles

MAX_SEGMENTS: Final = 1000  # of a JPEG file, before its image; each has up to 64 KiB
MAX_EXIF_SEGMENTS: Final = 64  # Pillow copies all of them for each
MAX_TAGS: Final = 4096  # of a TIFF directory
MAX_INFLATED: Final = 64 * 2**20  # of compressed profiles and texts in a PNG file
_MAX_RATIO: Final = 1032  # of inflated to deflated bytes
_MAX_TEXT: Final = 2**20  # Pillow stops to inflate a text or profile there

_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_SCAN, _END, _EXIF = b"\xda", b"\xd9", b"\xe1"
_PIXEL_CHUNKS: Final = {b"IDAT", b"fdAT", b"fcTL"}  # PNG; those of animations too
_DEFLATED_CHUNKS: Final = {b"iCCP", b"zTXt", b"iTXt"}
_CHUNK_HEAD: Final = struct.Struct(">I4s")
_RIFF_HEAD: Final = struct.Struct("<4sI")
_WEBP_FRAMES: Final = {b"ANMF", b"VP8 ", b"VP8L", b"ALPH"}
_EXTENSION, _IMAGE, _TRAILER = ord("!"), ord(","), ord(";")
_GIF_FRAMES: Final = 2  # Pillow looks for a second one
_PIECE_TAGS: Final = {273: "strips", 279: "strips", 324: "tiles", 325: "tiles"}
_CONTAINERS: Final = {b"meta": 4, b"jp2h": 0, b"iprp": 0, b"ipco": 0, b"moov": 0}
"""Boxes with boxes inside → how many bytes come before them."""


def check(data: bytes) -> None:
    """Checks the number and the size of the parts of a file of any format.

    Takes microseconds; of hostile files, a fraction of a second.

    Args:
        data: the whole file.

    Raises:
        UnreadableImage: there are more than any image needs; the text names them.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data)
    elif data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"RIFF"):
        _check_webp(data)
    elif data.startswith(b"GIF8"):
        _check_gif(data)
    elif data.startswith((b"II", b"MM")):
        _check_tiff(data)
    elif data[4:8] in {b"ftyp", b"jP  "}:
        _check_boxes(data)


def _require(name: str, kind: str, count: int, most: int) -> None:
    if count > most:
        raise UnreadableImage(f"the {name} file has more than {most:,} {kind}")


def _check_png(data: bytes) -> None:
    parts = size = pieces = inflated = 0
    at = 8
    while at + _CHUNK_HEAD.size <= len(data):
        length, kind = _CHUNK_HEAD.unpack_from(data, at)
        at += _CHUNK_HEAD.size + length + 4
        if kind == b"IEND":
            break
        if kind in _PIXEL_CHUNKS:
            pieces += 1
            _require("PNG", "chunks of pixels", pieces, MAX_PIECES)
            continue
        parts += 1
        size += length
        if kind in _DEFLATED_CHUNKS:
            inflated += min(_MAX_RATIO * length, _MAX_TEXT)
            _require("PNG", "bytes of compressed profiles and texts", inflated, MAX_INFLATED)
        _require("PNG", "chunks of metadata", parts, MAX_PARTS)
        _require("PNG", "bytes of metadata", size, MAX_BYTES)


def _check_jpeg(data: bytes) -> None:
    segments = exif = size = between = 0
    at = 2
    while (marker := _MARKER.search(data, at)) and marker[1] not in {_SCAN, _END}:
        begin = marker.end()
        between += marker.start() - at
        _require("JPEG", "bytes between its segments", between, MAX_PARTS)
        length = int.from_bytes(data[begin : begin + 2])
        at = begin + length
        segments += 1
        size += length
        exif += marker[1] == _EXIF and data.startswith(b"Exif", begin + 2)
        _require("JPEG", "segments of metadata", segments, MAX_SEGMENTS)
        _require("JPEG", "segments of EXIF data", exif, MAX_EXIF_SEGMENTS)
        _require("JPEG", "bytes of metadata", size, MAX_BYTES)


def _check_webp(data: bytes) -> None:
    parts = size = 0
    at = 12
    while at + _RIFF_HEAD.size <= len(data):
        kind, length = _RIFF_HEAD.unpack_from(data, at)
        at += _RIFF_HEAD.size + length + length % 2
        parts += 1
        size += 0 if kind in _WEBP_FRAMES else length
        _require("WebP", "chunks", parts, MAX_PARTS)
        _require("WebP", "bytes of metadata", size, MAX_BYTES)


def _check_gif(data: bytes) -> None:
    """Checks what comes before the end of the second frame."""
    parts = pieces = frames = 0
    at = _after_palette(data, 10, 13)
    while at + 1 < len(data) and frames < _GIF_FRAMES:
        kind = data[at]
        if kind == _IMAGE:
            frames += 1
            at = _after_palette(data, at + 9, at + 10) + 1
        elif kind == _EXTENSION:
            parts += 1
            _require("GIF", "blocks of metadata", parts, MAX_PARTS)
            at += 2
        elif kind == _TRAILER:
            break
        else:  # Pillow looks for a block byte by byte
            at += 1
            parts += 1
            _require("GIF", "bytes between its blocks", parts, MAX_PARTS)
            continue
        while at < len(data) and (length := data[at]):
            at += 1 + length
            pieces += 1
            _require("GIF", "pieces of blocks", pieces, MAX_PIECES)
        at += 1


def _after_palette(data: bytes, flags_at: int, end: int) -> int:
    """Where the palette ends that may follow a header; its last three bits of flags are its size."""
    flags = data[flags_at] if flags_at < len(data) else 0
    return end + (3 << (flags & 7) + 1) * (flags >> 7)


def _check_tiff(data: bytes) -> None:
    """Checks the first directory, which has the image."""
    order = "<" if data.startswith(b"II") else ">"
    is_big = data[2:4] in {b"+\0", b"\0+"}
    number, head, step = (order + "Q", order + "HHQ", 20) if is_big else (order + "I", order + "HHI", 12)
    try:
        (at,) = struct.unpack_from(number, data, 8 if is_big else 4)
        (tags,) = struct.unpack_from(number if is_big else order + "H", data, at)
        _require("TIFF", "tags", tags, MAX_TAGS)
        at += 8 if is_big else 2
        for begin in range(at, at + tags * step, step):
            tag, _, count = struct.unpack_from(head, data, begin)
            if tag in _PIECE_TAGS:
                _require("TIFF", _PIECE_TAGS[tag], count, MAX_PIECES)
    except struct.error:  # the directory ends early
        return


def _check_boxes(data: bytes) -> None:
    """Checks the boxes of AVIF, HEIC and JPEG 2000 files, and those inside the boxes that describe the image."""
    name = "JPEG 2000" if data[4:8] == b"jP  " else "AVIF"
    parts = size = 0
    to_read = [(0, len(data))]
    while to_read:
        for box in boxes(data, *to_read.pop(), most=MAX_PARTS + 1):
            parts += 1
            _require(name, "boxes", parts, MAX_PARTS)
            if box.kind in _CONTAINERS:
                to_read.append((box.begin + _CONTAINERS[box.kind], box.end))
            elif box.kind not in {b"mdat", b"idat", b"jp2c"}:
                size += box.end - box.begin
                _require(name, "bytes of metadata", size, MAX_BYTES)
