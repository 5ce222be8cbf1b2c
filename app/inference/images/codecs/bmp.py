"""Run-length coded BMP files, decoded run by run.

Pillow's decoder fills the rest of a row pixel by pixel in Python, and reads every byte with a call: a kilobyte takes
seconds. This one does the same with operations on whole runs. The format is described under "Bitmap Compression" in the
documentation of the Windows GDI.
"""

from typing import Final

from PIL import BmpImagePlugin, Image

_END_OF_ROW, _END_OF_IMAGE, _SKIP = 0, 1, 2  # codes after a zero; higher ones are numbers of pixels
_MAX_CODES: Final = 2_000_000  # a second or two; an image that is not simple has its pixels literally, 254 at a time
_HIGH: Final = bytes(level >> 4 for level in range(256))
_LOW: Final = bytes(level & 15 for level in range(256))


class _RunDecoder(BmpImagePlugin.BmpRleDecoder):
    """Takes the arguments of Pillow's decoder: mode, whether a byte has two pixels, direction of the rows."""

    def decode(self, buffer: object) -> tuple[int, int]:  # noqa: ARG002  Pillow's name
        """Decodes the whole image from the file. Pixels that the file skips or lacks are zero."""
        assert self.fd is not None  # noqa: S101  Pillow's decoder reads it too
        begin = self.fd.tell()
        levels = _levels(self.fd.read(), begin, self.state.xsize, self.state.ysize, two_per_byte=self.args[1])
        self.set_as_raw(levels, "L" if self.mode in {"1", "L"} else "P", (0, self.args[-1]))
        return -1, 0


def _levels(coded: bytes, offset: int, width: int, height: int, *, two_per_byte: bool) -> bytes:
    """The levels of all pixels that the data have, row by row.

    Args:
        coded: the data, which begin at this offset in the file.
        offset: see above; pixels are padded to even offsets.
        width: of a row.
        height: number of rows.
        two_per_byte: whether a pixel has four bits.

    Raises:
        OSError: there are more than two million codes.
    """
    size = width * height
    levels = bytearray()
    at = x = codes = 0
    while len(levels) < size and at + 1 < len(coded):
        codes += 1
        if codes > _MAX_CODES:
            raise OSError("the file consists of too many small pieces")
        count, code = coded[at], coded[at + 1]
        at += 2
        if count:
            count = min(count, max(0, width - x))
            x += count
            pair = _HIGH[code : code + 1] + _LOW[code : code + 1] if two_per_byte else coded[at - 1 : at] * 2
            levels += (pair * (count // 2 + 1))[:count]
        elif code == _END_OF_ROW:
            levels += bytes(-len(levels) % width)
            x = 0
        elif code == _END_OF_IMAGE:
            break
        elif code == _SKIP:
            if at + 1 >= len(coded):
                break
            right, up = coded[at], coded[at + 1]
            at += 2
            levels += bytes(min(size - len(levels), right + up * width))
            x = len(levels) % width
        else:
            count = min(size - len(levels), code)
            packed = coded[at : at + ((count + 1) // 2 if two_per_byte else count)]
            at += (count + 1) // 2 if two_per_byte else count
            levels += _unpacked(packed)[:count] if two_per_byte else packed
            if at > len(coded):
                break
            x += code
            at += (offset + at) % 2
    return bytes(levels)


def _unpacked(packed: bytes) -> bytes:
    """Two pixels for each byte, that of its high bits first."""
    pixels = bytearray(2 * len(packed))
    pixels[::2], pixels[1::2] = packed.translate(_HIGH), packed.translate(_LOW)
    return bytes(pixels)


def install() -> None:
    """Makes Pillow decode run-length coded BMP files with this module."""
    Image.register_decoder("bmp_rle", _RunDecoder)
