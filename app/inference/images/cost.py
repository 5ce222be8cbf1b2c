"""What decoding an image file will take: memory and processor time, from the file's header alone.

Nothing is decoded, and no file is searched to its end, so that a request can be admitted or refused before any decoder
sees it. Whoever decodes holds the file to the estimate: a file whose header lies exceeds its limits and fails.

The rates below were measured with photographs, noise, flat colour and transparency of 1600 × 1600 pixels in every
format and mode that is accepted, reduced to 224 × 224, on one core of a shared AMD EPYC: the highest resident memory
and the processor time of a decode, per pixel. The estimate, in parentheses, is for the most expensive of them.

====================================  =================  ===============
file                                  bytes per pixel    ns per pixel
====================================  =================  ===============
PNG: grey, RGB, RGBA                  3, 9, 16 (17)      11, 38, 40 (70)
PNG of 16 bits: grey, RGB, RGBA       11, 20, 24 (28)    47, 131, 174 (190)
JPEG: grey, RGB, CMYK                 1, 5, 9 (14)       12, 22, 38 (20)
JPEG, progressive: 4:2:0, 4:4:4       7, 10 (12)         37, 49 (47)
WebP: lossy, lossless, with alpha     5, 9, 12 (12)      53, 54, 58 (60)
WebP of several frames                22 (24)            60 (60)
GIF: opaque, transparent              2, 7 (11)          47, 57 (60)
BMP: palette, RGB                     6, 6 (7)           33, 34 (35)
TIFF: grey, RGB, RGBA                 2, 9, 15 (19)      24, 54, 48 (84)
TIFF of more bits: 16 grey, float     13, 21 (20)        47, 67 (73)
AVIF: 4:2:0, 4:4:4, RGBA              10, 13, 16 (20)    69, 62, 147 (146)
HEIC: 4:2:0, RGBA                     10, 15 (20)        302, 427 (337)
JPEG 2000: grey, RGB, RGBA            6, 19, 27 (24)     129, 396, 571 (585)
====================================  =================  ===============

JPEG files that are decoded at a fraction of their size take that fraction squared, and what their bytes take.
Copies of the file come on top, of which a JPEG of noise has most: 4 bytes per pixel, three times.
"""

import re
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from app.inference.images.codecs import webp
from app.inference.images.model_input import InputSpec
from app.inference.images.resampling import jpeg_scale

_FIXED_BYTES: Final = 2 * 2**20  # of any decode, whatever the image's size
_FIXED_S: Final = 0.0005
_FILE_COPIES: Final = 3  # the file, and what parsers copy of it

_SEARCHED_BYTES: Final = 2**16  # for what has no fixed place in the file
_MAX_PARTS: Final = 1000  # segments, tags or properties that are read

# PNG
_COLOUR_TYPES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""PNG's colour types → channels."""
_PNG_PALETTE: Final = 3
_PNG_HEAD: Final = 33

_JPEG: Final = b"\xff\xd8\xff"
_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_SCAN, _END = b"\xda", b"\xd9"
_FRAMES: Final = {bytes([code]) for code in range(0xC0, 0xD0)} - {b"\xc4", b"\xc8", b"\xcc"}
_SEQUENTIAL: Final = {b"\xc0", b"\xc1", b"\xc3"}

_WEBP_ANIMATION: Final = 2  # a flag

# TIFF
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 262, 277, 322, 323
_TIFF_PALETTE: Final = 3
_LONG: Final = 4  # the type of four-byte integers

_BMP_CORE_HEADER: Final = 12
_BMP_MASKS, _BMP_RUNS = 3, {1, 2}  # kinds of coding
_BYTE, _RGB, _RGBA = 8, 3, 4  # bits; channels


@dataclass(frozen=True)
class DecodeCost:
    """What decoding one image file takes.

    Attributes:
        memory: bytes at the peak, copies of the file included.
        seconds: of processor time, roughly: unusual content can take several times as long.
    """

    memory: int
    seconds: float


class _Rate(NamedTuple):
    """The size of an image, and what each of its pixels and each byte of its file takes."""

    pixels: int
    pixel_bytes: float
    pixel_ns: float
    byte_ns: float = 0


_NOTHING: Final = _Rate(0, 0, 0)


def decode_cost(content: bytes, spec: InputSpec) -> DecodeCost:
    """The cost of decoding a file. Takes some microseconds and raises nothing.

    Args:
        content: the whole file, of any format or none. A file that is no image, or whose header is damaged, costs
            little: decoding it ends at once.
        spec: the input that it becomes.
    """
    try:
        rate = _rate(content, spec)
    except (struct.error, IndexError):  # the header ends early
        rate = _NOTHING
    memory = _FIXED_BYTES + rate.pixels * rate.pixel_bytes + len(content) * _FILE_COPIES
    return DecodeCost(round(memory), _FIXED_S + (rate.pixels * rate.pixel_ns + len(content) * rate.byte_ns) / 1e9)


def _rate(content: bytes, spec: InputSpec) -> _Rate:
    if content.startswith(_JPEG):
        return _of_jpeg(content, spec)
    for signature, read in _READERS:
        if content.startswith(signature):
            return read(content)
    return _of_avif(content) if content[4:8] == b"ftyp" else _NOTHING


def _of_png(content: bytes) -> _Rate:
    width, height, depth, colour = struct.unpack_from(">IIBB", content, 16)
    channels = _COLOUR_TYPES.get(colour, _RGBA)
    if depth > _BYTE:
        return _Rate(width * height, 8 + 5 * channels, 10 + 45 * channels)
    has_colour = channels >= _RGB or colour == _PNG_PALETTE
    if channels in {2, _RGBA} or content.find(b"tRNS", _PNG_HEAD, _SEARCHED_BYTES) > 0:
        return _Rate(width * height, 17, 10 + 15 * channels)
    return _Rate(width * height, 11 if has_colour else 4, 10 + 15 * channels)  # interlaced ones take longest


def _of_jpeg(content: bytes, spec: InputSpec) -> _Rate:
    at, frame, height, width, channels = 2, b"", 0, 0, 0
    for _ in range(_MAX_PARTS):
        marker = _MARKER.search(content, at)
        if marker is None or marker[1] in {_SCAN, _END}:
            break
        begin = marker.end()
        if marker[1] in _FRAMES:
            frame = marker[1]
            height, width, channels = struct.unpack_from(">HHB", content, begin + 3)
        at = begin + int.from_bytes(content[begin : begin + 2])
    else:
        return _NOTHING
    upright = 2 if channels == 1 else 9 if channels == _RGB else 14
    # The orientation is not known here: one of both may need more pixels.
    area = min(jpeg_scale(width, height, spec), jpeg_scale(height, width, spec)) ** 2
    # Without all channels in one scan, the coefficients are kept, of two bytes each.
    is_whole = marker is None or content[marker.end() + 2 : marker.end() + 3] == bytes([channels])
    if frame in _SEQUENTIAL and is_whole:
        return _Rate(width * height, upright / area, 10 / area, 15)
    return _Rate(width * height, max(upright / area, 3 + 3 * channels), 12 + 13 / area, 40)


def _of_webp(content: bytes) -> _Rate:
    kind, pixel_bytes = content[8:16], 12
    if kind == b"WEBPVP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        if content[20] & _WEBP_ANIMATION:
            pixel_bytes = 24
    elif kind == b"WEBPVP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"WEBPVP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
        pixel_bytes = 7
    else:
        return _NOTHING
    return _Rate(width * height, pixel_bytes if webp.IS_AVAILABLE else 24, 60)


def _of_gif(content: bytes) -> _Rate:
    width, height = struct.unpack_from("<HH", content, 6)
    return _Rate(width * height, 11, 60)


def _of_bmp(content: bytes) -> _Rate:
    (header,) = struct.unpack_from("<I", content, 14)
    if header == _BMP_CORE_HEADER:
        width, height = struct.unpack_from("<HH", content, 18)
        return _Rate(width * height, 7, 35)
    width, height, _, bits, coding = struct.unpack_from("<iiHHI", content, 18)
    pixels = abs(width * height)
    if coding in _BMP_RUNS:
        return _Rate(pixels, 12, 60, 100)
    return _Rate(pixels, 15 if coding == _BMP_MASKS and bits == _RGBA * _BYTE else 7, 35)


def _of_tiff(content: bytes) -> _Rate:
    order = "<" if content.startswith(b"II") else ">"
    is_big = content[2:4] in {b"+\0", b"\0+"}
    (at,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), content, at)
    first, step, inline = (at + 8, 20, 8) if is_big else (at + 2, 12, 4)
    tags: dict[int, int] = {}
    for begin in range(first, first + min(count, _MAX_PARTS) * step, step):
        tag, kind = struct.unpack_from(order + "HH", content, begin)
        (values,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, begin + 4)
        place = begin + step - inline
        if values * (4 if kind == _LONG else 2) > inline:
            (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), content, place)
        if tag in _TIFF_SIZES:
            tags.setdefault(tag, *struct.unpack_from(order + ("I" if kind == _LONG else "H"), content, place))
    pixels = max(
        tags.get(_WIDTH, 0) * tags.get(_HEIGHT, 0),
        tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0),
    )
    samples, bits = max(tags.get(_SAMPLES, 1), 1), tags.get(_BITS, 1)
    if bits > _BYTE:
        return _Rate(pixels, 13 if bits <= 2 * _BYTE and samples == 1 else 12 + 4 * samples, 25, 12)
    if samples == 1:
        return _Rate(pixels, 8 if tags.get(_PHOTOMETRIC) == _TIFF_PALETTE else 3, 25, 12)
    return _Rate(pixels, 9 if samples == _RGB else 15 + samples, 25, 12)


_TIFF_SIZES: Final = {_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT}


def _of_avif(content: bytes) -> _Rate:
    """AVIF and HEIC. They announce the sizes of the image and of its parts; the largest counts."""
    if content[:12] == _JPEG2000_CONTAINER:
        return _of_jpeg2000(content)
    pixels, at = 0, 0
    for _ in range(_MAX_PARTS):
        at = content.find(b"ispe", at, _SEARCHED_BYTES)
        if at < 0:
            break
        width, height = struct.unpack_from(">II", content, at + 8)
        pixels, at = max(pixels, width * height), at + 4
    return _Rate(pixels, 20, 60, 100 if content[8:12] in _AVIF else 220)


_AVIF: Final = {b"avif", b"avis"}  # the brands of other files permit HEVC
_JPEG2000_CONTAINER: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
_JPEG2000: Final = b"\xff\x4f\xff\x51"


def _of_jpeg2000(content: bytes) -> _Rate:
    at = content.find(_JPEG2000, 0, _SEARCHED_BYTES)
    if at < 0:
        return _NOTHING
    right, bottom, left, top = struct.unpack_from(">IIII", content, at + 8)
    channels, depth = struct.unpack_from(">HB", content, at + 40)
    is_deep = depth & 0x7F >= _BYTE
    pixels = max(right - left, 0) * max(bottom - top, 0)
    return _Rate(pixels, 2 + 5.5 * channels + 7 * is_deep, 80, 190)


_READERS: Final = (
    (b"\x89PNG\r\n\x1a\n", _of_png),
    (b"RIFF", _of_webp),
    (b"GIF8", _of_gif),
    (b"BM", _of_bmp),
    (b"II", _of_tiff),
    (b"MM", _of_tiff),
    (_JPEG2000, _of_jpeg2000),
    (_JPEG2000_CONTAINER, _of_jpeg2000),
)
"""How a file begins → what reads its header."""
