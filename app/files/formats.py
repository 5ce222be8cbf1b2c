"""The supported image formats: the only table of names, media types and file suffixes.

Decoding, training, the client, the Ray job and the API document read it.
"""

from typing import Final, NamedTuple


class ImageFormat(NamedTuple):
    """An image format.

    Attributes:
        name: Pillow's name for it.
        media_type: as registered with IANA.
        suffixes: of file names, in lower case, including the dot.
    """

    name: str
    media_type: str
    suffixes: tuple[str, ...]


FORMATS: Final = (
    ImageFormat("PNG", "image/png", (".png", ".apng")),
    ImageFormat("JPEG", "image/jpeg", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    ImageFormat("WEBP", "image/webp", (".webp",)),
    ImageFormat("BMP", "image/bmp", (".bmp",)),
    ImageFormat("GIF", "image/gif", (".gif",)),
    ImageFormat("TIFF", "image/tiff", (".tif", ".tiff")),
)

NAMES: Final = tuple(each.name for each in FORMATS)
MEDIA_TYPES: Final = tuple(each.media_type for each in FORMATS)
SUFFIXES: Final = tuple(suffix for each in FORMATS for suffix in each.suffixes)
