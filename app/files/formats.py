"""The supported image formats: the only table of names, media types and file suffixes.

Decoding, training, the client, the Ray job and the API document read it.
"""

from importlib.util import find_spec
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


HEIC_PACKAGE: Final = "pillow_heif"
HAS_HEIC: Final = find_spec(HEIC_PACKAGE) is not None
"""Whether the package of the extra ``heic`` is installed."""

BUILT_IN: Final = (
    ImageFormat("PNG", "image/png", (".png", ".apng")),
    ImageFormat("JPEG", "image/jpeg", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    ImageFormat("WEBP", "image/webp", (".webp",)),
    ImageFormat("BMP", "image/bmp", (".bmp",)),
    ImageFormat("GIF", "image/gif", (".gif",)),
    ImageFormat("TIFF", "image/tiff", (".tif", ".tiff")),
    ImageFormat("AVIF", "image/avif", (".avif", ".avifs")),
    ImageFormat("JPEG2000", "image/jp2", (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c")),
)
_HEIC: Final = ImageFormat("HEIF", "image/heif", (".heic", ".heif", ".hif"))

FORMATS: Final = (*BUILT_IN, _HEIC) if HAS_HEIC else BUILT_IN

NAMES: Final = tuple(each.name for each in FORMATS)
MEDIA_TYPES: Final = tuple(each.media_type for each in FORMATS)
SUFFIXES: Final = tuple(suffix for each in FORMATS for suffix in each.suffixes)
