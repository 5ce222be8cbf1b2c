"""The boxes of ISO base media files (ISO/IEC 14496-12): AVIF, HEIC, JPEG 2000 and JPEG XL containers, video."""

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

_MAX_BOXES: Final = 10_000
_HEAD: Final = 8
_LONG_HEAD: Final = 16


class Box(NamedTuple):
    """A box: its type, and where its content begins and ends in the file."""

    kind: bytes
    begin: int
    end: int


def boxes(data: bytes, begin: int = 0, end: int | None = None, *, most: int = _MAX_BOXES) -> Iterator[Box]:
    """The boxes in a part of a file, in order, up to the first that is damaged.

    Args:
        data: the whole file.
        begin: where the first box begins.
        end: where the part ends; None: with the file.
        most: how many are listed; the rest is left out.
    """
    return islice(_all_boxes(data, begin, len(data) if end is None else end), most)


def _all_boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    while at + _HEAD <= end:
        size, kind, head = int.from_bytes(data[at : at + 4]), data[at + 4 : at + _HEAD], _HEAD
        if size == 1:
            size, head = int.from_bytes(data[at + _HEAD : at + _LONG_HEAD]), _LONG_HEAD
        elif size == 0:
            size = end - at
        if size < head:
            return
        yield Box(kind, at + head, min(at + size, end))
        at += size


def brands(data: bytes) -> tuple[bytes, ...]:
    """The brands of a file, the major one first; empty if it does not begin with a box ``ftyp``."""
    first = next(boxes(data), None)
    if first is None or first.kind != b"ftyp":
        return ()
    listed = data[first.begin : min(first.end, first.begin + 256)]
    return (listed[:4], *(listed[at : at + 4] for at in range(8, len(listed) - 3, 4)))
