"""The header of a JPEG 2000 codestream, with limits on what it makes its decoder allocate.

OpenJPEG allocates kilobytes for each tile, precinct and code-block before it reads the first pixel, and the codestream
may have another size than the container announces. Sections refer to ITU-T T.800 (2015), Annex A.
"""

from typing import Final, NamedTuple

from app.inference.errors import UnreadableImage
from app.inference.images.codecs.boxes import boxes

_RAW: Final = b"\xff\x4f\xff\x51"
_SIZE, _CODING, _COMPONENT_CODING, _TILE, _DATA = 0x51, 0x52, 0x53, 0x90, 0x93
_MAX_COMPONENTS: Final = 4
_MAX_TILES: Final = 4096
_MAX_LAYERS: Final = 256
_MIN_PRECINCT: Final = 5  # log2 of the side in pixels of the image
_MIN_BLOCK: Final = 8  # log2 of the area in pixels
_MAX_SEGMENTS: Final = 100_000
_SIZE_BYTES: Final = 36


class Codestream(NamedTuple):
    """What the header says.

    Attributes:
        width: in pixels.
        height: in pixels.
        bits: per sample, of the component with the most.
    """

    width: int
    height: int
    bits: int


def read_header(data: bytes) -> Codestream:
    """Reads and checks the main header and the headers of all tiles of a file.

    Raises:
        UnreadableImage: the file is damaged, or is divided into far smaller parts than encoders use.
    """
    start = _codestream(data)
    if data[start : start + 4] != _RAW:
        raise UnreadableImage("the JPEG 2000 file has no image")
    try:
        header = _size(data, start + 4)
        _check_segments(data, start + 2)
    except IndexError as error:
        raise UnreadableImage("the JPEG 2000 file is truncated or damaged") from error
    return header


def _codestream(data: bytes) -> int:
    """Where the codestream begins."""
    if data.startswith(_RAW):
        return 0
    return next((box.begin for box in boxes(data) if box.kind == b"jp2c"), len(data))


def _size(data: bytes, at: int) -> Codestream:
    """The size segment (A.5.1)."""
    fields = data[at + 4 : at + 4 + 32]
    right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top = (
        int.from_bytes(fields[begin : begin + 4]) for begin in range(0, 32, 4)
    )
    components = _number(data, at + _SIZE_BYTES, 2)
    if not 0 < components <= _MAX_COMPONENTS:
        raise UnreadableImage(f"the JPEG 2000 file has {components} channels; 1 to {_MAX_COMPONENTS} are supported")
    if not (right > left and bottom > top and tile_width and tile_height):
        raise UnreadableImage("the JPEG 2000 file has no pixels")
    tiles = -(-(right - tiles_left) // tile_width) * -(-(bottom - tiles_top) // tile_height)
    if tiles > _MAX_TILES:
        raise UnreadableImage(f"the JPEG 2000 file has {tiles:,} tiles; at most {_MAX_TILES:,} are supported")
    depths = [(_number(data, at + _SIZE_BYTES + 2 + 3 * index, 1) & 0x7F) + 1 for index in range(components)]
    return Codestream(right - left, bottom - top, max(depths))


def _check_segments(data: bytes, at: int) -> None:
    """Checks how each tile is divided, which every tile may say anew (A.6.1, A.6.2)."""
    tile_end = None
    for _ in range(_MAX_SEGMENTS):
        marker = _number(data, at, 2) & 0xFF
        if marker == _DATA:
            if tile_end is None:
                return
            at, tile_end = tile_end, None
            if at + 2 >= len(data) or data[at + 1] != _TILE:
                return
            continue
        length = _number(data, at + 2, 2)
        if marker == _TILE:
            part = _number(data, at + 6, 4)
            tile_end = at + part if part else len(data)
        elif marker == _CODING:
            if _number(data, at + 6, 2) > _MAX_LAYERS:
                raise UnreadableImage(f"the JPEG 2000 file has more than {_MAX_LAYERS} layers")
            _check_division(data, at + 9, has_precincts=data[at + 4] & 1)
        elif marker == _COMPONENT_CODING:
            _check_division(data, at + 6, has_precincts=data[at + 5] & 1)
        at += 2 + length
    raise UnreadableImage("the JPEG 2000 file consists of too many small pieces")


def _check_division(data: bytes, at: int, *, has_precincts: int) -> None:
    """Checks sides of code-blocks and precincts (Tables A.15, A.18 and A.21)."""
    levels, width, height = (_number(data, at + index, 1) for index in range(3))
    if (width & 15) + (height & 15) + 4 < _MIN_BLOCK:
        raise UnreadableImage("the JPEG 2000 file has code-blocks of less than 256 pixels, which are not supported")
    # Of each resolution, the lowest first, which has half the pixels per side of the next.
    sides = [(levels - index, data[at + 5 + index]) for index in range(levels + 1)] if has_precincts else []
    if any(min(side & 15, side >> 4) + halvings < _MIN_PRECINCT for halvings, side in sides):
        raise UnreadableImage("the JPEG 2000 file has precincts of less than 32 pixels, which are not supported")


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError("the file ends early")
    return int.from_bytes(data[at : at + size])
