"""WebP files: decodes still pictures into the memory of an image. Pillow takes up to four times as much memory.

Pillow uses the part of libwebp that plays animations: it keeps two pictures, copies the one that it returns, and
copies that into an image. The functions here are of the same library, for still pictures, and give the same values.

Source: libwebp, src/webp/decode.h.
"""

import ctypes
from typing import Final, NamedTuple, Self

import numpy as np
from PIL import Image, _webp
from PIL import ImageFile as PillowFile

_BYTES: Final = 4  # per pixel
_LAYOUTS: Final = {"RGB": "RGBX", "RGBA": "RGBA"}
"""Pillow's modes → the mode that has the same values in four bytes per pixel."""


class _Library(NamedTuple):
    """The functions of libwebp for still pictures.

    Attributes:
        read_size: ``WebPGetInfo``.
        read_pixels: ``WebPDecodeRGBAInto``.
    """

    read_size: "ctypes._NamedFuncPointer"
    read_pixels: "ctypes._NamedFuncPointer"

    @classmethod
    def of_pillow(cls) -> Self | None:
        """The library that Pillow uses; None if it does not export its functions."""
        try:
            library = ctypes.CDLL(_webp.__file__)
            read_size, read_pixels = library.WebPGetInfo, library.WebPDecodeRGBAInto
        except (OSError, AttributeError):
            return None
        size = ctypes.POINTER(ctypes.c_int)
        read_size.argtypes = (ctypes.c_char_p, ctypes.c_size_t, size, size)
        read_size.restype = ctypes.c_int
        read_pixels.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        read_pixels.restype = ctypes.c_void_p
        return cls(read_size, read_pixels)


_LIBRARY: Final = _Library.of_pillow()
IS_AVAILABLE: Final = _LIBRARY is not None
"""Whether still pictures are decoded here, not by Pillow."""


def load(image: PillowFile.ImageFile, data: bytes) -> Image.Image:
    """Decodes the pixels of an image that Pillow opened, in place of its method ``load``, with the same values.

    Args:
        image: the image.
        data: the whole file.

    Returns:
        An image without metadata, of the mode RGBX for an image of the mode RGB; or the same image, if Pillow must
        decode it: an animation.

    Raises:
        Exception: any that Pillow raises for a damaged file.
    """
    decoded = _decoded(image, data)
    if decoded is None:
        image.load()
        return image
    return decoded


def _decoded(image: Image.Image, data: bytes) -> Image.Image | None:
    """A still picture; None: it is another kind, or damaged."""
    if not _LIBRARY or image.mode not in _LAYOUTS:
        return None
    width, height = ctypes.c_int(), ctypes.c_int()
    is_read = _LIBRARY.read_size(data, len(data), ctypes.byref(width), ctypes.byref(height))
    if not is_read or (width.value, height.value) != image.size:
        return None
    pixels = np.empty((height.value, width.value, _BYTES), np.uint8)
    if not _LIBRARY.read_pixels(data, len(data), pixels.ctypes.data, pixels.nbytes, _BYTES * width.value):
        return None
    layout = _LAYOUTS[image.mode]
    return Image.frombuffer(layout, image.size, pixels, "raw", layout, 0, 1)
