"""Names of file formats that are not supported, recognized by their first bytes, with what to do instead."""

import io
import re
from collections.abc import Mapping
from typing import Any, Final

from PIL import TiffImagePlugin

from app.files.formats import HAS_HEIC
from app.inference.images.codecs.boxes import brands

_EXPORT: Final = "export as PNG or JPEG"
_HEIC_ADVICE: Final = "export as JPEG, or install the extra `heic` (pip install 'anomaly-service[heic]')"
_RAW_ADVICE: Final = "develop to 16-bit TIFF, or export as JPEG"
_VIDEO_ADVICE: Final = "send single frames as PNG or JPEG"
_ARCHIVE_ADVICE: Final = "unpack it and send the images"

_SIGNATURES: Final[tuple[tuple[re.Pattern[bytes], str, str], ...]] = tuple(
    (re.compile(pattern, re.DOTALL), name, advice)
    for pattern, name, advice in (
        (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL images", _EXPORT),
        (rb".{0,1000}?%PDF-", "PDF documents", "export the page as PNG"),
        (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.{0,1000}?)?(?:<!.{0,1000}?)?(?i:<svg[\s>])", "SVG drawings", "export as PNG"),
        (rb"(?:\xef\xbb\xbf)?\s*(?i:<!doctype html|<html)", "HTML pages", "send the image that the page shows"),
        (rb".{128}DICM", "DICOM files", "export the image as 16-bit PNG or TIFF"),
        (rb"FUJIFILMCCD-RAW", "RAF camera raw files", _RAW_ADVICE),
        (rb"IIR[OS]|MMOR", "ORF camera raw files", _RAW_ADVICE),
        (rb"IIU\0", "RW2 camera raw files", _RAW_ADVICE),
        (rb"8BPS", "Photoshop files", _EXPORT),
        (rb"v/1\x01", "OpenEXR images", "convert to 32-bit float TIFF"),
        (rb"#\?RADIANCE", "Radiance HDR images", "convert to 32-bit float TIFF"),
        (rb"P[1-7]\s", "PNM images", "convert to PNG"),
        (rb"SIMPLE  =", "FITS images", "convert to 32-bit float TIFF"),
        (rb"\x93NUMPY", "NumPy arrays", "save as PNG or TIFF"),
        (rb"\x89HDF\r\n\x1a\n", "HDF5 files", "save as PNG or TIFF"),
        (rb"RIFF.{4}AVI ", "AVI videos", _VIDEO_ADVICE),
        (rb"\x1aE\xdf\xa3", "Matroska and WebM videos", _VIDEO_ADVICE),
        (rb"\0\0\x01[\xb3\xba]", "MPEG videos", _VIDEO_ADVICE),
        (rb"PK\x03\x04", "ZIP archives", _ARCHIVE_ADVICE),
        (rb"\x1f\x8b", "gzip archives", _ARCHIVE_ADVICE),
    )
)
"""Pattern of a file's beginning, what such files are called, and what to do instead."""

_VIDEO_BRAND: Final = re.compile(rb"isom|iso[2-9]|mp4[12]|avc1|M4V |qt  |3g[a-z0-9]{2}|dash")
_BRANDS: Final = (
    (re.compile(rb"crx "), "CR3 camera raw files", _RAW_ADVICE),
    *([] if HAS_HEIC else [(re.compile(rb"he[iv][cxms]|mif1|msf1"), "HEIC images", _HEIC_ADVICE)]),
    (_VIDEO_BRAND, "MP4 and QuickTime videos", _VIDEO_ADVICE),
)
_AVIF_BRANDS: Final = {b"avif", b"avis"}
_SNIFFED_BYTES: Final = 4096

_SUBFILE_TYPE, _MAKE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 271, 330, 50706  # TIFF tags
_BITS, _SAMPLES, _VALUE_KIND = 258, 277, 339
_INTEGER: Final = "unsigned integer"
_VALUE_KINDS: Final = {1: _INTEGER, 2: "signed integer", 3: "floating-point", 5: "complex", 6: "complex"}
_SHALLOW: Final = {1, 2, 4, 8}
_ORDINARY: Final = {*_SHALLOW, 12, 16, 32}
_GREY_ALPHA: Final = 2  # samples
_IS_PREVIEW: Final = 1
_RAW_NAMES: Final = (("NIKON", "NEF camera raw files"), ("SONY", "ARW camera raw files"))


def describe(data: bytes) -> str | None:
    """What a file is and what to do instead, as a sentence; None if its format is not known.

    Args:
        data: the whole file, which could not be opened as an image.
    """
    head = data[:_SNIFFED_BYTES]
    for pattern, name, advice in _SIGNATURES:
        if pattern.match(head):
            return _sentence(name, advice)
    of_file = brands(data)
    if _AVIF_BRANDS.intersection(of_file):  # a supported format: the file is damaged
        return None
    for pattern, name, advice in _BRANDS:
        if any(map(pattern.fullmatch, of_file)):
            return _sentence(name, advice)
    return None


def tiff_kind(data: bytes) -> str | None:
    """What values a TIFF file has that are not supported, as a sentence like that of :func:`describe`.

    Args:
        data: the whole file, which could not be opened as an image.

    Returns:
        The sentence; None: it is no TIFF file, its header is damaged, or its values are ordinary ones.
    """
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        depths, samples = tags[_BITS], int(tags.get(_SAMPLES, 1))
        bits, kind = max(depths), _VALUE_KINDS.get(int(tags.get(_VALUE_KIND, (1,))[0]), "unknown")
    except Exception:  # as in decoding: hostile files can make Pillow's parsers raise almost any exception
        return None
    grey_alpha = samples == _GREY_ALPHA
    ordinary = _SHALLOW if grey_alpha else _ORDINARY - ({32} if data.startswith(b"MM") else set())
    if len(set(depths)) == 1 and bits in ordinary and kind == _INTEGER:
        return None
    channels = "one channel" if samples == 1 else f"{samples:,} channels"
    advice = "save as PNG" if grey_alpha else "save as 16-bit integers, or as 32-bit floating point with one channel"
    return _sentence(f"TIFF images with {channels} of {bits}-bit {kind} values", advice)


def camera_raw(data: bytes, tags: Mapping[int, Any]) -> str | None:
    """Which camera raw format a TIFF file has, as a sentence like that of :func:`describe`; None: it is an image.

    These files begin with a preview, which Pillow would decode in place of the image.

    Args:
        data: the whole file.
        tags: of the first directory; empty: it is no TIFF file.
    """
    if tags and data[8:10] == b"CR":
        return _sentence("CR2 camera raw files", _RAW_ADVICE)
    if _DNG_VERSION in tags:
        return _sentence("DNG camera raw files", _RAW_ADVICE)
    if not (int(tags.get(_SUBFILE_TYPE, 0)) & _IS_PREVIEW and _SUB_DIRECTORIES in tags):
        return None
    maker = str(tags.get(_MAKE, "")).upper()
    return _sentence(
        next((name for start, name in _RAW_NAMES if maker.startswith(start)), "camera raw files"), _RAW_ADVICE
    )


def _sentence(name: str, advice: str) -> str:
    return f"{name} are not supported; {advice}"
