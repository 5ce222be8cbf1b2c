"""What an AVIF file will make its decoder do: sizes and numbers of its AV1 frames.

The container announces the image's size, but the decoder allocates what the AV1 data inside it say, and scales the
result. A file of some hundred bytes could announce 8 × 8 pixels and have gigabytes decoded. Sections refer to the AV1
specification (version 1.0.0, errata 1) and to ISO/IEC 14496-12.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from app.inference.errors import UnreadableImage
from app.inference.images.codecs.boxes import Box, boxes

_MAX_ITEMS: Final = 1024  # tiles of a grid, alpha, thumbnails
_MAX_UNITS: Final = 1024  # of one item
_MAX_USES: Final = 2  # of the file's bytes, on average
_MAX_FRAMES: Final = 16  # of one item: one, or a few layers
_SEQUENCE_HEADER: Final = 1
_FRAMES: Final = {3, 6}  # frame header, frame
_SEQUENCE_HEADER_BYTES: Final = 512  # longer than the longest up to the frame's size
_HIGHEST_LEVEL_WITHOUT_TIER: Final = 7
_IN_IDAT: Final = 1


class Frames(NamedTuple):
    """The AV1 frames of a file.

    Attributes:
        largest: width × height of the largest.
        total: the sum of all.
    """

    largest: int
    total: int


def frames(data: bytes) -> Frames:
    """The AV1 frames of a file's still images.

    Raises:
        UnreadableImage: the file is an animation, is damaged, or has far more frames than an image needs.
    """
    top = {box.kind: box for box in boxes(data)}
    if b"moov" in top:
        raise UnreadableImage("AVIF animations are not supported; send single frames")
    try:
        sizes = [size for item in _av1_items(data, top[b"meta"]) for size in _frame_sizes(item)]
    except (KeyError, IndexError) as error:
        raise UnreadableImage("the AVIF file is damaged") from error
    return Frames(max(sizes, default=0), sum(sizes))


def _av1_items(data: bytes, meta: Box) -> Iterator[bytes]:
    """The AV1 data of each image item, wherever the file has them (ISO/IEC 14496-12, 8.11)."""
    inside = {box.kind: box for box in boxes(data, meta.begin + 4, meta.end)}
    image_items = _image_items(data, inside[b"iinf"])
    if len(image_items) > _MAX_ITEMS:
        raise UnreadableImage(f"the AVIF file has more than {_MAX_ITEMS:,} parts")
    read = _Reader(data, inside[b"iloc"])
    version = read.number(4) >> 24
    sizes = read.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version > 1 else 2
    used = 0
    for _ in range(read.number(wide)):
        item = read.number(wide)
        construction = read.number(2) & 15 if version else 0
        read.number(2)
        base = read.number(base_size)
        if construction == _IN_IDAT:
            base += inside[b"idat"].begin
        extents = read.number(2)
        if extents > _MAX_UNITS:
            raise UnreadableImage(f"the AVIF file has more than {_MAX_UNITS:,} pieces in one part")
        pieces = []
        for _ in range(extents):
            read.number(index_size if version else 0)
            begin = base + read.number(offset_size)
            length = read.number(length_size)
            if item in image_items:
                pieces.append(data[begin : begin + length if length else None])
                used += len(pieces[-1])
            if used > _MAX_USES * len(data):
                raise UnreadableImage("the AVIF file uses the same bytes repeatedly")
        if item in image_items:
            yield b"".join(pieces)


def _image_items(data: bytes, iinf: Box) -> set[int]:
    """The numbers of the items whose type is an AV1 image."""
    version = data[iinf.begin]
    found = set()
    for entry in boxes(data, iinf.begin + (8 if version else 6), iinf.end):
        wide = 4 if data[entry.begin] > 2 else 2  # noqa: PLR2004  version of infe
        at = entry.begin + 4
        if data[at + wide + 2 : at + wide + 6] == b"av01":
            found.add(int.from_bytes(data[at : at + wide]))
    return found


def _frame_sizes(item: bytes) -> Iterator[int]:
    """Width × height of each frame that decoding an item decodes (AV1, 5.3 and 5.5)."""
    size = count = at = 0
    for _ in range(_MAX_UNITS):
        if at >= len(item):
            break
        head = item[at]
        kind, has_extension, has_size = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
        at += 1 + has_extension
        length = len(item) - at
        if has_size:
            length, at = _leb128(item, at)
        if kind == _SEQUENCE_HEADER:
            size = max(size, _sequence_size(item[at : at + min(length, _SEQUENCE_HEADER_BYTES)]))
        count += kind in _FRAMES
        at += length
    else:
        raise UnreadableImage(f"the AVIF file has more than {_MAX_UNITS:,} pieces in one part")
    if count > _MAX_FRAMES:
        raise UnreadableImage(f"the AVIF file has more than {_MAX_FRAMES} frames in one part")
    return iter([size] * max(count, 1))


def _leb128(item: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends (AV1, 4.10.5)."""
    value = 0
    for index in range(8):
        byte = item[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004  no more bytes follow
            return value, at + index + 1
    raise UnreadableImage("the AVIF file is damaged")


def _sequence_size(header: bytes) -> int:
    """The largest width × height that a sequence header allows (AV1, 5.5.1)."""
    bits = _Bits(header)
    bits.take(3 + 1)
    if bits.take(1):  # reduced still-picture header
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(width_bits) + 1) * (bits.take(height_bits) + 1)


def _skip_operating_points(bits: "_Bits") -> None:
    delay_bits = 0
    if bits.take(1):  # timing info
        bits.take(32 + 32)
        if bits.take(1):
            bits.skip_uvlc()
        if bits.take(1):  # decoder model info
            delay_bits = bits.take(5) + 1
            bits.take(32 + 5 + 5)
    display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > _HIGHEST_LEVEL_WITHOUT_TIER:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if display_delay and bits.take(1):
            bits.take(4)


class _Bits:
    """Reads bits from the highest of the first byte on; raises IndexError beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data)
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("the header ends early")
        return self._value >> self._left & ((1 << count) - 1)

    def skip_uvlc(self) -> None:
        zeros = 0
        while not self.take(1):
            zeros += 1
        self.take(zeros)


class _Reader:
    """Reads big-endian numbers from a box; raises IndexError beyond its end."""

    def __init__(self, data: bytes, box: Box) -> None:
        self._data, self._at, self._end = data, box.begin, box.end

    def number(self, size: int) -> int:
        begin, self._at = self._at, self._at + size
        if self._at > self._end:
            raise IndexError("the box ends early")
        return int.from_bytes(self._data[begin : self._at])
