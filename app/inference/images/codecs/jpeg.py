"""JPEG files: decodes only those whose image data are complete.

libjpeg fills what is missing with grey and reports it as a warning, which Pillow does not show; a file that was cut and
then closed with an end marker decodes without an error. Here, the decoder gets the data of each scan without what
follows them. If it has all blocks of the scan, it does not need that; if not, it waits for more. This takes no second
pass over the data. Sections refer to ITU-T T.81, Annex B.
"""

import re
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from PIL import Image
from PIL import ImageFile as PillowFile

from app.inference.errors import UnreadableImage

# Each scan visits all blocks of the image, and an empty scan takes 14 bytes: one megabyte could take minutes to decode.
# Encoders write about ten scans; libtiff has the same limit for JPEG data.
_MAX_SCANS: Final = 100
_MAX_SEGMENTS: Final = 10_000  # before, between and after scans; each scan may bring its own tables
_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_RESTARTS: Final = range(0xD0, 0xD8)
_SCAN, _END, _RESTART_INTERVAL, _PROGRESSIVE = 0xDA, 0xD9, 0xDD, 0xC2
_FRAMES: Final = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # C4, C8 and CC are no frames: tables, reserved
_FIRST_ARITHMETIC: Final = 0xC9
_COEFFICIENTS: Final = 64
# libjpeg looks ahead by up to eight bytes. A missing block consumes five bytes of ones, a code that no table has.
_FILLER: Final = b"\xff\0" * 8
_ATTEMPTS: Final = 4
_END_MARKER: Final = b"\xff\xd9"
_INCOMPLETE: Final = "the image is incomplete: its data end before its last rows"


@dataclass
class JpegFile:
    """A JPEG file and its structure, up to the end of its first image.

    Attributes:
        data: the whole file.
        scans: for each scan, where its data end, and the restart marker that would come next; None: it has none.
        has_end: whether there is an end marker.
        is_arithmetic: whether the data are coded arithmetically, not with Huffman codes.
        rows_come_at_once: whether one scan has the final values of all channels, so that rows are decoded as they come.
        lacks_scans: whether scans are missing: channels, or bits of a progressive image.
    """

    data: bytes
    scans: list[tuple[int, bytes | None]] = field(default_factory=list)
    has_end: bool = False
    is_arithmetic: bool = False
    rows_come_at_once: bool = False
    lacks_scans: bool = False

    def load(self, image: PillowFile.ImageFile, scale: int = 1) -> tuple[str, ...]:
        """Decodes the pixels of an image that Pillow opened, in place of its method ``load``.

        Args:
            image: its size changes to what is decoded.
            scale: 1, 2, 4 or 8, not more than a side: the divisor of its width and height, which are rounded up.

        Returns:
            Warnings.

        Raises:
            UnreadableImage: the data are incomplete or damaged.
        """
        if scale > 1:
            image.draft(image.mode, (image.width // scale, image.height // scale))
        feed = _Feed(image)
        data = memoryview(self.data)
        at = 0
        for end, restart in [] if self.is_arithmetic else self.scans:
            feed.give(b"".join((data[at:end], _FILLER)))
            if feed.is_finished:
                break
            if restart and not feed.needs_more():  # perhaps for blocks after this marker
                feed.give(restart)  # what comes next is less than a block
            if self.rows_come_at_once or feed.needs_more():
                raise UnreadableImage(_INCOMPLETE)
            at = end
        if not feed.is_finished:
            feed.give(b"".join((data[at:], b"" if self.has_end else _END_MARKER)))
        if self.lacks_scans or not feed.is_finished:
            raise UnreadableImage(_INCOMPLETE)
        image.tile = []
        return () if self.has_end else ("the end marker of the JPEG file is missing",)


class _Feed:
    """Pillow's decoder of an image, fed piece by piece.

    Attributes:
        is_finished: whether all rows are decoded.
    """

    def __init__(self, image: PillowFile.ImageFile) -> None:
        if not image.tile:
            raise UnreadableImage("the JPEG file has no image data")
        image.load_prepare()
        tile = image.tile[0]
        self._decoder = Image._getdecoder(image.mode, tile.codec_name, tile.args, image.decoderconfig)
        self._decoder.setimage(image.im, tile.extents)
        self._left = b""
        self.is_finished = False

    def needs_more(self) -> bool:
        """Whether the decoder has the beginning of a block and needs its end. Otherwise it looks for a marker.

        In search of a marker it passes over everything. A block is decoded again from its beginning when more data
        come, of which the decoder keeps up to eight bytes: one byte may complete it, but not one byte after another.
        """
        for _ in range(_ATTEMPTS):
            if len(self._left) > 1:
                return True
            self.give(_FILLER[:2])
        return False

    def give(self, piece: bytes) -> None:
        """Decodes as much as possible.

        Raises:
            UnreadableImage: the data are damaged.
        """
        if self.is_finished:
            return
        data = self._left + piece
        consumed, status = self._decoder.decode(data)
        if consumed < 0 and status < 0:
            raise UnreadableImage("the JPEG file is damaged")
        self.is_finished = consumed < 0
        self._left = data[max(consumed, 0) :]


def read_structure(data: bytes) -> JpegFile:
    """Reads the markers of a JPEG file, up to the end of its first image.

    Segments are skipped with their content, which may contain a thumbnail.

    Raises:
        UnreadableImage: there are more than 100 scans, or a segment is damaged.
    """
    try:
        return _read_structure(data)
    except (IndexError, ValueError) as error:
        raise UnreadableImage("the JPEG file is damaged") from error


def _read_structure(data: bytes) -> JpegFile:
    file = JpegFile(data)
    received = _Received()
    interval, scan, at = 0, 0, 2
    for segments in count():
        if segments > _MAX_SEGMENTS:
            raise UnreadableImage(f"the JPEG file has more than {_MAX_SEGMENTS:,} segments")
        marker = _MARKER.search(data, at)
        # A copy that was interrupted may end in zeros, which a decoder takes for the rest of the image.
        end = marker.start() if marker else max(at, len(data.rstrip(b"\0")))
        if scan:
            file.scans.append((end, _next_restart(data, scan, end) if interval else None))
            scan = 0
        if marker is None or marker[1][0] == _END:
            break
        kind, at = marker[1][0], marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2])
        segment = data[marker.end() + 2 : at]
        if kind in _FRAMES:
            file.is_arithmetic = kind >= _FIRST_ARITHMETIC
            received.begin(segment, is_progressive=kind == _PROGRESSIVE)
        elif kind == _RESTART_INTERVAL:
            interval = int.from_bytes(segment[:2])
        elif kind == _SCAN:
            if len(file.scans) == _MAX_SCANS:
                raise UnreadableImage(f"the JPEG file has more than {_MAX_SCANS} scans")
            scan = at
            received.add(segment)
            if not file.scans:
                file.rows_come_at_once = received.is_complete and not received.is_progressive
    file.has_end = marker is not None
    file.lacks_scans = bool(file.scans) and not received.is_complete
    return file


def _next_restart(data: bytes, begin: int, end: int) -> bytes:
    """The restart marker that would follow those from ``begin`` to ``end``, which are numbered modulo 8."""
    passed = sum(data.count(bytes([0xFF, code]), begin, end) for code in _RESTARTS)
    return bytes([0xFF, _RESTARTS[passed % len(_RESTARTS)]])


class _Received:
    """Which values have been received, by channel: for each of its coefficients, how many bits are still missing.

    Attributes:
        is_progressive: whether coefficients come in several scans, and bit by bit.
    """

    def __init__(self) -> None:
        self.is_progressive = False
        self._missing: dict[int, list[int]] = {}

    def begin(self, frame: bytes, *, is_progressive: bool) -> None:
        """A frame header (B.2.2): nothing of its channels is there yet."""
        self.is_progressive = is_progressive
        self._missing = {channel: [_COEFFICIENTS] * _COEFFICIENTS for channel in frame[6::3]}

    def add(self, scan: bytes) -> None:
        """A scan header (B.2.3)."""
        channels, parameters = scan[1 : 1 + 2 * scan[0] : 2], scan[1 + 2 * scan[0] :]
        if not self.is_progressive:
            parameters = bytes([0, _COEFFICIENTS - 1, 0])  # other values have no meaning, but some files have them
        first, last, bits = parameters[0], min(parameters[1], _COEFFICIENTS - 1), parameters[2] & 15
        for channel in channels:
            if channel in self._missing:
                self._missing[channel][first : last + 1] = [bits] * (last + 1 - first)

    @property
    def is_complete(self) -> bool:
        """Whether all bits of all coefficients of all channels are there."""
        return not any(map(any, self._missing.values()))
