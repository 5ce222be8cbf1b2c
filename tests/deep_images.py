"""Image files of more than 8 bits per channel, of kinds that Pillow does not write."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from tests import hostile

RANDOM = np.random.default_rng(0)


def png(values: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG file of (H, W, C) values: grey, grey and alpha, colour, or colour and alpha."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return hostile.png(width, height, depth=16, colour={1: 0, 2: 4, 3: 2, 4: 6}[channels], rows=rows)


def tiff(
    values: NDArray[np.generic],
    *,
    order: str = "<",
    compression: int = 1,
    separate: bool = False,
    extra: int | None = None,
) -> bytes:
    """A TIFF file of (H, W, C) values of any type."""
    height, width, channels = values.shape
    ordered = np.moveaxis(values, -1, 0) if separate else values
    pixels = ordered.astype(values.dtype.newbyteorder(order)).tobytes()  # type: ignore[arg-type]
    pixels = zlib.compress(pixels) if compression == 8 else pixels
    bits, kind = 8 * values.dtype.itemsize, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    lists = struct.pack(f"{order}8H", *[bits] * 4, *[kind] * 4)
    count, size = (channels, len(pixels) // channels) if separate else (1, len(pixels))
    begins, sizes = [8 + size * index for index in range(count)], [size] * count
    at = 8 + len(pixels)
    tail = pixels + lists + struct.pack(f"{order}{2 * count}I", *begins, *sizes)
    inline = {1: (bits, kind), 2: (bits * 0x10001, kind * 0x10001)}.get(channels, (at, at + 8))
    tags: dict[int, tuple[int, int, int]] = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, channels, inline[0]), 259: (3, 1, compression),
        262: (3, 1, 1 if channels < 3 else 2), 273: (4, count, 8 if count == 1 else at + 16), 277: (3, 1, channels),
        278: (4, 1, height), 279: (4, count, size if count == 1 else at + 16 + 4 * count),
        284: (3, 1, 2 if separate else 1), 339: (3, channels, inline[1]),
    }  # fmt: skip
    if extra is not None:
        tags[338] = (3, 1, extra)
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind_of, number)
        + (struct.pack(f"{order}HH", value, 0) if (kind_of, number) == (3, 1) else struct.pack(f"{order}I", value))
        for tag, (kind_of, number, value) in sorted(tags.items())
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(tail))
    return head + tail + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def noise(channels: int, bits: int = 16) -> NDArray[np.uint16]:
    """(8, 8, C) values of so many bits."""
    return RANDOM.integers(0, 2**bits, (8, 8, channels), dtype=np.uint16)
