"""Files of formats that are not supported are named, with what to do instead."""

import struct

import pytest

from app.files.formats import HAS_HEIC
from app.inference.errors import UnreadableImage
from app.inference.images.decoding import open_image
from tests import hostile
from tests.support import encode, gradient


def container(*brands: bytes) -> bytes:
    """The first box of an ISO base media file."""
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(64)


HEIC = pytest.mark.skipif(HAS_HEIC, reason="pillow-heif is installed: HEIC is supported")


@pytest.mark.parametrize(
    ("data", "name", "advice"),
    [
        pytest.param(container(b"heic", b"mif1", b"heic"), "HEIC images", "install the extra `heic`", marks=HEIC),
        pytest.param(container(b"mif1", b"heix"), "HEIC images", "export as JPEG", marks=HEIC),
        (b"\xff\x0a" + bytes(20), "JPEG XL images", "export as PNG or JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "JPEG XL images", "export as PNG or JPEG"),
        (b"%PDF-1.7\n", "PDF documents", "export the page as PNG"),
        (b"\n junk \n%PDF-1.4\n", "PDF documents", "export the page as PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawings", "export as PNG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a drawing -->\n<svg>", "SVG drawings", "export as PNG"),
        (b"<!DOCTYPE html><title>403</title>", "HTML pages", "send the image that the page shows"),
        (bytes(128) + b"DICM\2\0\0\0", "DICOM files", "16-bit PNG or TIFF"),
        (container(b"crx ", b"crx ", b"isom"), "CR3 camera raw files", "16-bit TIFF"),
        (b"FUJIFILMCCD-RAW 0201", "RAF camera raw files", "16-bit TIFF"),
        (b"IIRO\x08\0\0\0", "ORF camera raw files", "16-bit TIFF"),
        (b"IIU\0\x18\0\0\0", "RW2 camera raw files", "16-bit TIFF"),
        (b"8BPS\0\1", "Photoshop files", "export as PNG or JPEG"),
        (b"v/1\x01\2\0\0\0", "OpenEXR images", "32-bit float TIFF"),
        (b"P5\n8 8\n255\n", "PNM images", "convert to PNG"),
        (container(b"isom", b"iso2", b"avc1", b"mp41"), "MP4 and QuickTime videos", "single frames"),
        (container(b"qt  "), "MP4 and QuickTime videos", "single frames"),
        (b"RIFF\0\1\0\0AVI LIST", "AVI videos", "single frames"),
        (b"\x1aE\xdf\xa3\x01", "Matroska and WebM videos", "single frames"),
        (b"PK\x03\x04\x14\0", "ZIP archives", "unpack it"),
        (b"\x1f\x8b\x08\0", "gzip archives", "unpack it"),
    ],
)
def test_file_is_named_with_what_to_do(data: bytes, name: str, advice: str) -> None:
    with pytest.raises(UnreadableImage) as caught:
        open_image(data, max_pixels=10**6)
    assert str(caught.value).startswith(f"{name} are not supported; ")
    assert advice in str(caught.value)


def test_unknown_and_damaged_files_get_the_list_of_formats() -> None:
    damaged_avif = bytearray(encode(gradient(), "AVIF"))
    damaged_avif[60:80] = bytes(20)
    for data in (b"hello", bytes(1000), bytes(damaged_avif)):
        with pytest.raises(UnreadableImage, match=r"not a readable image of the formats PNG, JPEG, .* AVIF, JPEG2000"):
            open_image(data, max_pixels=10**6)


class TestCameraRaw:
    """Camera raw files that are TIFF files begin with a preview, which is not the photograph."""

    @pytest.mark.parametrize(
        ("tags", "name"),
        [
            ({50706: (1, 4, 0x00000401)}, "DNG camera raw files"),
            ({254: (4, 1, 1), 330: (4, 1, 8), 271: (2, 4, int.from_bytes(b"Nik\0", "little"))}, "camera raw files"),
        ],
    )
    def test_preview_is_not_decoded(self, tags: dict[int, tuple[int, int, int]], name: str) -> None:
        with pytest.raises(UnreadableImage, match=f"{name} are not supported; develop to 16-bit TIFF"):
            open_image(_tiff(tags), max_pixels=10**6)

    @pytest.mark.parametrize(("maker", "name"), [(b"NIKON CORPORATION\0", "NEF"), (b"SONY\0", "ARW")])
    def test_maker_names_the_format(self, maker: bytes, name: str) -> None:
        data = _tiff({254: (4, 1, 1), 330: (4, 1, 8), 271: (2, len(maker), 8 + 64)}, maker)
        with pytest.raises(UnreadableImage, match=f"{name} camera raw files are not supported"):
            open_image(data, max_pixels=10**6)

    def test_cr2_is_recognized_by_its_bytes(self) -> None:
        data = encode(gradient(), "TIFF")
        assert data[8:10] != b"CR"
        with pytest.raises(UnreadableImage, match="CR2 camera raw files are not supported"):
            open_image(b"II*\0" + struct.pack("<I", 16) + b"CR\2\0" + bytes(4) + _directory(), max_pixels=10**6)

    def test_ordinary_tiff_with_sub_directories_is_an_image(self) -> None:
        """Pyramids have smaller versions in sub-directories; the first directory has the image itself."""
        open_image(_tiff({330: (4, 1, 8)}), max_pixels=10**6)


_TAGS = {256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8), 277: (3, 1, 1),
         278: (4, 1, 8), 279: (4, 1, 64)}  # fmt: skip


def _tiff(tags: dict[int, tuple[int, int, int]], text: bytes = b"") -> bytes:
    return hostile.tiff(_TAGS | tags, bytes(64) + text)


def _directory() -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(_TAGS.items()))
    return struct.pack("<H", len(_TAGS)) + entries + bytes(4)
