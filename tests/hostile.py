"""Valid, damaged and hostile image files. The service must score or reject each of them quickly, in little memory."""

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.ExifTags import Base as ExifTag

from tests.support import encode, gradient

_MIB: Final = 2**20
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6


# --- valid images -------------------------------------------------------------------------------------------------


@cache
def seeds() -> dict[str, bytes]:
    """Small valid files of all formats, in every mode and with every option that has its own decoder path."""
    grey = gradient(16, 12)
    colour = Image.merge("RGB", [grey, grey.rotate(180), Image.new("L", grey.size, 77)])
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    floats = Image.fromarray((np.asarray(grey) / 255).astype(np.float32))
    exif = Image.Exif()
    exif[ExifTag.Orientation] = 6
    exif[ExifTag.Make] = "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    images: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "png-1": (grey.convert("1"), "PNG", {}),
        "png-L": (grey, "PNG", {"exif": exif}),
        "png-LA": (grey.convert("LA"), "PNG", {}),
        "png-I;16": (deep, "PNG", {"transparency": 257}),
        "png-P": (colour.convert("P"), "PNG", {"transparency": b"\0\x40\x80"}),
        "png-RGB": (colour, "PNG", {"icc_profile": profile}),
        "png-RGBA": (colour.convert("RGBA"), "PNG", {}),
        "png-animated": (colour, "PNG", {"save_all": True, "append_images": [colour.rotate(180)]}),
        "jpeg-L": (grey, "JPEG", {}),
        "jpeg-RGB": (colour, "JPEG", {"exif": exif, "comment": b"c"}),
        "jpeg-progressive": (colour, "JPEG", {"progressive": True, "subsampling": 2}),
        "jpeg-CMYK": (colour.convert("CMYK"), "JPEG", {}),
        "mpo": (colour, "MPO", {"save_all": True, "append_images": [colour.rotate(180)]}),
        "gif-L": (grey, "GIF", {}),
        "gif-P": (colour.convert("P"), "GIF", {"transparency": 1, "comment": b"c", "interlace": 1}),
        "gif-animated": (grey, "GIF", {"save_all": True, "append_images": [grey.rotate(180)], "loop": 0}),
        "bmp-1": (grey.convert("1"), "BMP", {}),
        "bmp-L": (grey, "BMP", {}),
        "bmp-RGB": (colour, "BMP", {}),
        "bmp-RGBA": (colour.convert("RGBA"), "BMP", {}),
        "tiff-L": (grey, "TIFF", {}),
        "tiff-LA": (grey.convert("LA"), "TIFF", {}),
        "tiff-I;16": (deep, "TIFF", {}),
        "tiff-I;16B": (deep.convert("I").convert("I;16B"), "TIFF", {}),
        "tiff-I": (deep.convert("I"), "TIFF", {}),
        "tiff-F": (floats, "TIFF", {}),
        "tiff-deflate": (colour, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff-lzw": (colour, "TIFF", {"compression": "tiff_lzw", "exif": exif}),
        "tiff-jpeg": (colour, "TIFF", {"compression": "jpeg"}),
        "tiff-group4": (grey.convert("1"), "TIFF", {"compression": "group4"}),
        "tiff-big": (grey, "TIFF", {"big_tiff": True}),
        "tiff-pages": (grey, "TIFF", {"save_all": True, "append_images": [grey]}),
        "webp-lossy": (colour, "WEBP", {"exif": exif}),
        "webp-lossless": (colour.convert("RGBA"), "WEBP", {"lossless": True}),
        "webp-animated": (colour, "WEBP", {"save_all": True, "append_images": [colour.rotate(180)]}),
        "avif-L": (grey, "AVIF", {}),
        "avif-RGB": (colour, "AVIF", {"exif": exif, "subsampling": "4:4:4"}),
        "avif-RGBA": (colour.convert("RGBA"), "AVIF", {}),
        "jp2-L": (grey, "JPEG2000", {"precinct_size": (128, 128)}),
        "jp2-LA": (grey.convert("LA"), "JPEG2000", {}),
        "jp2-I;16": (deep, "JPEG2000", {}),
        "jp2-RGB": (colour, "JPEG2000", {"quality_layers": [20, 5], "irreversible": True}),
        "j2k-RGBA": (colour.convert("RGBA"), "JPEG2000", {"no_jp2": True, "tile_size": (8, 8)}),
    }
    return {name: encode(image, kind, **options) for name, (image, kind, options) in images.items()} | {
        "png-16-bit-grey-alpha": png(8, 8, depth=16, colour=_GREY_ALPHA, rows=(b"\0" + bytes(range(32))) * 8),
        "png-16-bit-colour": png(8, 8, depth=16, colour=_COLOUR, rows=(b"\0" + bytes(range(48))) * 8),
        "png-16-bit-colour-alpha": png(8, 8, depth=16, colour=_COLOUR_ALPHA, rows=(b"\0" + bytes(range(64))) * 8),
        "tiff-signed": tiff(
            _tiff_tags(8, 8, bits=(3, 1, 16), strips=(4, 1, 8), strip_bytes=(4, 1, 128)) | {339: (3, 1, 2)},
            bytes(range(128)),
        ),
        "bmp-rle8": bmp(8, 4, compression=1, pixels=b"\x08\x05\0\0" * 4 + b"\0\1"),
        "bmp-rle4": bmp(8, 4, compression=2, bits=4, pixels=b"\x08\x15\0\0" * 4 + b"\0\1"),
    }


# --- damage ---------------------------------------------------------------------------------------------------------

_INTERESTING: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@st.composite
def damaged(draw: st.DrawFn, files: Sequence[bytes]) -> bytes:
    """One of the files with one to four changes, at random bytes or at fields of the format."""
    data = draw(st.sampled_from(files))
    if draw(st.integers(0, 9)) == 0:  # the beginning of one file and the end of another
        other = draw(st.sampled_from(files))
        data = data[: draw(st.integers(0, len(data)))] + other[draw(st.integers(0, len(other))) :]
    for _ in range(draw(st.integers(1, 4))):
        # Half of the changes are in the header.
        end = len(data) if draw(st.booleans()) else min(len(data), 96)
        if end:
            change = draw(
                st.sampled_from((_flip, _set, _set_number, _delete, _insert, _repeat, _truncate, _change_structure))
            )
            data = change(draw, data, draw(st.integers(0, end - 1)))
        else:
            data = draw(st.sampled_from(files))
    return data


def _put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _flip(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return _put(data, at, bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]))


def _set(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return _put(data, at, bytes([draw(st.integers(0, 255))]))


def _set_number(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    """Sets lengths, sizes and offsets to boundary values of their types."""
    width = draw(st.sampled_from((2, 4)))
    value = draw(st.sampled_from(_INTERESTING)) & (2 ** (8 * width) - 1)
    return _put(data, at, value.to_bytes(width, "little" if draw(st.booleans()) else "big"))


def _delete(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at] + data[at + draw(st.integers(1, 64)) :]


def _insert(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at] + draw(st.binary(min_size=1, max_size=32)) + data[at:]


def _repeat(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at] + data[at : at + draw(st.integers(1, 64))] * draw(st.integers(2, 20)) + data[at:]


def _truncate(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    return data[:at]


def _change_structure(draw: st.DrawFn, data: bytes, at: int) -> bytes:
    """A change that keeps checksums and framing valid, so that it is not detected by them."""
    if data.startswith(_PNG):
        return _PNG + b"".join(chunk(*each) for each in _with_changed_chunks(draw, list(_png_chunks(data))))
    if data[:4] in {b"II*\0", b"MM\0*"} and len(data) > 22:
        return _with_changed_tag(draw, data)
    return data


def _with_changed_chunks(draw: st.DrawFn, chunks: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    if not chunks:
        return chunks
    one, other = (draw(st.integers(0, len(chunks) - 1)) for _ in range(2))
    match draw(st.sampled_from(("swap", "drop", "duplicate", "edit"))):
        case "swap":
            chunks[one], chunks[other] = chunks[other], chunks[one]
        case "drop":
            del chunks[one]
        case "duplicate":
            chunks.insert(other, chunks[one])
        case "edit":
            chunk_type, body = chunks[one]
            chunks[one] = chunk_type, _put(body, draw(st.integers(0, len(body))), bytes([draw(st.integers(0, 255))]))
    return chunks


def _with_changed_tag(draw: st.DrawFn, data: bytes) -> bytes:
    """Changes the tag, type, count or value of one entry of the first TIFF directory."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    first = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[first : first + 2], order)
    entry = first + 2 + 12 * draw(st.integers(0, max(0, min(count, 64) - 1)))
    if entry + 12 > len(data):
        return data
    field, size = draw(st.sampled_from(((0, 2), (2, 2), (4, 4), (8, 4))))
    value = draw(st.one_of(st.sampled_from(_INTERESTING), st.integers(0, 400))) & (2 ** (8 * size) - 1)
    return _put(data, entry + field, value.to_bytes(size, order))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


# --- builders -------------------------------------------------------------------------------------------------------


def chunk(chunk_type: bytes, body: bytes) -> bytes:
    """A PNG chunk with a valid checksum."""
    return struct.pack(">I", len(body)) + chunk_type + body + struct.pack(">I", zlib.crc32(chunk_type + body))


def png(
    width: int, height: int, *before: bytes, depth: int = 8, colour: int = _GREY, rows: bytes | None = None
) -> bytes:
    """A PNG file. ``before`` are chunks between header and pixels; the default of ``rows`` is a black image."""
    channels = {_GREY: 1, _COLOUR: 3, _PALETTE: 1, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}[colour]
    packed = zlib.compress(rows, 9) if rows is not None else _zeros(height * (1 + (width * depth * channels + 7) // 8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return _PNG + header + b"".join(before) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def _zeros(length: int) -> bytes:
    """A zlib stream of zero bytes, compressed block by block to save memory."""
    packer = zlib.compressobj(9)
    block = bytes(_MIB)
    full, rest = divmod(length, _MIB)
    return b"".join(packer.compress(block) for _ in range(full)) + packer.compress(bytes(rest)) + packer.flush()


def tiff(tags: dict[int, tuple[int, int, int]], tail: bytes = b"", *, following: int = 0) -> bytes:
    """A little-endian TIFF file. Tags are (type, count, value or offset); ``tail`` begins at byte 8."""
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 8 + len(tail)) + tail + directory


def _tiff_tags(width: int, height: int, **more: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
    """The tags of an 8-bit grey image, and others by name."""
    numbers = {"bits": 258, "compression": 259, "photometric": 262, "strips": 273, "samples": 277, "rows": 278,
               "strip_bytes": 279, "tile_width": 322, "tile_height": 323, "tiles": 324, "tile_bytes": 325}  # fmt: skip
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    return tags | {numbers[name]: value for name, value in more.items()}


def bmp(
    width: int, height: int, *, bits: int = 8, compression: int = 0, pixels: bytes = b"", colours: int = 256
) -> bytes:
    """A BMP file with a grey palette of 256 levels."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, colours, 0)
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + palette + pixels


def gif(width: int, height: int, *blocks: bytes, frame: tuple[int, int] = (8, 8)) -> bytes:
    """A GIF file with ``blocks`` followed by one grey frame of the size ``frame``."""
    palette = b"".join(bytes([level] * 3) for level in range(256))
    image = encode(Image.new("P", frame), "GIF")
    pixels = image[image.index(b",") + 10 :]
    descriptor = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0)
    return (
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + palette + b"".join(blocks) + descriptor + pixels
    )


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP file of (type, data) chunks."""
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG with ``scans`` additional scans, each of which visits all blocks and changes none."""
    base = encode(Image.new("L", (width, height), 90), "JPEG", progressive=True)
    blocks = -(-width // 8) * -(-height // 8)
    # The only Huffman code, 0, is an end-of-band run of 2¹⁴ blocks, plus the number in the following 14 bits.
    table = _segment(0xC4, bytes([0x10, 1, *bytes(15), 0xE0]))
    bits = ("0" + "1" * 14) * (blocks // 32767) + "".join("0" + f"{0:014b}" for _ in range(blocks % 32767 and 2))
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    scan = _segment(0xDA, bytes([1, 1, 0x00, 1, 63, 0x10])) + coded
    return base[:-2] + table + scan * scans + b"\xff\xd9"


def _profile_bomb() -> bytes:
    return chunk(b"iCCP", b"p\0\0" + _zeros(32 * _MIB))


def _directory_loop(data: bytes) -> bytes:
    return data[:-4] + struct.pack("<I", struct.unpack_from("<I", data, 4)[0])


# --- the corpus -----------------------------------------------------------------------------------------------------


@cache
def corpus() -> dict[str, bytes]:
    """Odd and hostile files by name. Each must be scored, or rejected with 413 or 422, with little time and memory."""
    grey = gradient(16, 12)
    plain = encode(grey)
    tags = _tiff_tags
    raw_gif = gif(8, 8)
    exif_loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
    garbage = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
    nan = np.full((8, 8), np.nan, np.float32)
    return {
        "png-huge": png(2**31 - 1, 2**31 - 1, rows=b""),
        "png-wide": png(2**31 - 1, 1, rows=b""),
        "png-bomb": png(20_000, 20_000, depth=1),
        "png-deep-bomb": png(1000, 1000, depth=16, colour=_COLOUR_ALPHA),
        "png-65535x1": png(65535, 1),
        "png-1x65535": png(1, 65535),
        "png-zero": png(0, 0, rows=b""),
        "png-zero-high": png(8, 0, rows=b""),
        "png-pixels-beyond-the-last-row": png(8, 8, rows=bytes(16 * _MIB)),
        "png-profile-bomb": png(8, 8, _profile_bomb()),
        "png-text-bombs": png(8, 8, *[chunk(b"zTXt", b"k\0\0" + _zeros(_MIB - 9))] * 200),
        "png-itxt-bomb": png(8, 8, chunk(b"iTXt", b"k\0\1\0\0\0" + _zeros(32 * _MIB))),
        "png-frames": png(8, 8, chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
        "png-thousands-of-frames": encode(
            Image.new("L", (8, 8)), save_all=True, append_images=[Image.new("L", (8, 8), i % 251) for i in range(2000)]
        ),
        "png-many-chunks": png(8, 8, *[chunk(b"abCd", b"")] * 80_000),
        "png-many-texts": png(8, 8, *[chunk(b"tEXt", b"k\0v")] * 60_000),
        "png-garbage-profile": png(8, 8, chunk(b"iCCP", b"p\0\0" + zlib.compress(garbage[:999]))),
        "png-garbage-exif": png(8, 8, chunk(b"eXIf", garbage[:999])),
        "png-exif-loop": png(8, 8, chunk(b"eXIf", exif_loop)),
        "png-without-palette": png(8, 8, colour=_PALETTE),
        "png-odd-depth": png(8, 8, depth=3, rows=bytes(99)),
        "png-two-headers": png(8, 8, chunk(b"IHDR", struct.pack(">IIBBBBB", 9999, 9999, 8, 0, 0, 0, 0))),
        "png-trailing-garbage": plain + garbage,
        "png-is-also-zip": plain + b"PK\x03\x04" + garbage[:500],
        "png-is-also-html": png(8, 8, chunk(b"tEXt", b"Comment\0<script>alert(1)</script>")),
        "jpeg-huge": encode(grey, "JPEG").replace(struct.pack(">HH", 12, 16), b"\xff\xff\xff\xff", 1),
        "jpeg-scans": many_scans(960, 960, 60_000),
        "jpeg-comments": b"\xff\xd8" + _segment(0xFE, b"") * 200_000 + encode(grey, "JPEG")[2:],
        "jpeg-fill-bytes": b"\xff\xd8" + b"\xff" * 900_000 + encode(grey, "JPEG")[3:],
        "jpeg-exif-loop": encode(grey, "JPEG", exif=b"Exif\0\0" + exif_loop),
        "jpeg-garbage-exif": encode(grey, "JPEG", exif=b"Exif\0\0" + garbage[:999]),
        "jpeg-garbage-profile": encode(grey, "JPEG", icc_profile=garbage[:60_000]),
        "jpeg-65500x1": encode(Image.new("L", (65500, 1), 99), "JPEG"),
        "jpeg-cmyk": encode(Image.new("CMYK", (16, 12), (10, 20, 30, 40)), "JPEG"),
        "jpeg-ycck": encode(Image.new("CMYK", (16, 12), (9, 9, 9, 9)), "JPEG").replace(
            b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"
        ),
        "jpeg-header-alone": encode(grey, "JPEG")[:200],
        "jpeg-then-jpeg": encode(grey, "JPEG") * 3,
        "gif-huge-screen": gif(65535, 65535),
        "gif-zero-screen": gif(0, 0, frame=(1, 1)),
        "gif-frame-beyond-screen": gif(1, 1, frame=(900, 900)),
        "gif-comments": gif(8, 8, b"!\xfe" + (b"\x01a" * 400_000) + b"\0"),
        "gif-many-comments": gif(8, 8, b"!\xfe\x01a\0" * 100_000),
        "gif-endless-comment": b"GIF89a\x08\0\x08\0\0\0\0!\xfe" + b"\xff" * 300_000,
        "gif-thousands-of-frames": raw_gif[:-1] + raw_gif[raw_gif.index(b",", 781) : -1] * 10_000 + b";",
        "gif-without-image": raw_gif[:781] + b";",
        "bmp-huge": bmp(2**31 - 1, 2**31 - 1),
        "bmp-negative": bmp(-8, -8, pixels=bytes(64)),
        "bmp-zero": bmp(0, 0),
        "bmp-most-negative": bmp(8, -(2**31), pixels=bytes(64)),
        "bmp-colours": bmp(8, 8, pixels=bytes(64), colours=2**32 - 1),
        "bmp-odd-bits": bmp(8, 8, bits=7, pixels=bytes(64)),
        "bmp-odd-compression": bmp(8, 8, compression=77, pixels=bytes(64)),
        "bmp-rle-short": bmp(960, 960, compression=1, pixels=b"\1\1\0\0" * 5),
        "bmp-rle-rows": bmp(960, 960, compression=1, pixels=b"\1\1\0\0" * 960),
        "bmp-rle-crumbs": bmp(960, 960, compression=1, pixels=b"\0\2\0\0" * 240_000),
        "bmp-rle4-crumbs": bmp(960, 960, compression=2, bits=4, pixels=b"\xff\x12" * 400_000),
        "tiff-huge": tiff(tags(2**32 - 1, 2**32 - 1, strips=(4, 1, 8), strip_bytes=(4, 1, 8)), bytes(8)),
        "tiff-huge-strip": tiff(
            tags(8, 8, strips=(4, 1, 8), rows=(4, 1, 2**32 - 1), strip_bytes=(4, 1, 2**32 - 1)), bytes(64)
        ),
        "tiff-loop": _directory_loop(tiff(tags(8, 8, strips=(4, 1, 8), strip_bytes=(4, 1, 64)), bytes(64))),
        "tiff-many-directories": _many_directories(20_000),
        "tiff-many-tags": _many_tags(),
        "tiff-many-strips": tiff(
            tags(4, 50_000, strips=(4, 50_000, 16), rows=(4, 1, 1), strip_bytes=(4, 50_000, 16)),
            bytes(8) + struct.pack("<I", 8) * 50_000,
        ),
        "tiff-tile-bomb": _tile_bomb(32_768, 32_768, 4),
        "tiff-tile-too-large": _tile_bomb(2**31 - 16, 2**31 - 16, 1),
        "tiff-tile-zero": _tile_bomb(0, 0, 1),
        "tiff-no-tags": tiff({}),
        "tiff-endless-directory": b"II*\0\x08\0\0\0\xff\xff" + bytes(100),
        "tiff-offset-outside": b"II*\0\xff\xff\xff\xff" + bytes(100),
        "tiff-nan": encode(Image.fromarray(nan), "TIFF"),
        "tiff-huge-floats": encode(Image.fromarray(np.full((8, 8), 3e38, np.float32)), "TIFF"),
        "tiff-samples": tiff(tags(8, 8, samples=(4, 1, 2**31), strips=(4, 1, 8), strip_bytes=(4, 1, 64)), bytes(64)),
        "webp-huge-canvas": _webp_with_canvas(16_384),
        "webp-impossible-canvas": webp((b"VP8X", b"\0\0\0\0" + b"\xff" * 6), (b"VP8 ", bytes(64))),
        "webp-empty": webp(),
        "webp-lying-length": encode(grey, "WEBP")[:4] + b"\xff\xff\xff\xff" + encode(grey, "WEBP")[8:],
        "webp-frames": encode(
            Image.new("RGB", (8, 8)), "WEBP", save_all=True, lossless=True,
            append_images=[Image.new("RGB", (8, 8), (i % 251, 0, 0)) for i in range(500)],
        ),
        "avif-large-frame": _with_sizes(encode(Image.new("L", (2048, 2048)), "AVIF"), 2048, 8),
        "avif-thousands-of-frames": avif_with_frames(4000),
        "avif-many-tiles": avif_with_items(3000),
        "avif-many-boxes": encode(grey, "AVIF") + struct.pack(">I", 8) + b"free" * 120_000,
        "avif-animated": encode(grey, "AVIF", save_all=True, append_images=[grey.rotate(180)]),
        "jp2-huge": _with_sizes(encode(grey, "JPEG2000"), (12, 16), (2**31 - 1, 2**31 - 1)),
        "j2k-huge": _jpeg2000(2**31 - 1, 2**31 - 1),
        "j2k-one-pixel-tiles": _jpeg2000(960, 960, tile=1),
        "j2k-channels": _jpeg2000(960, 960, channels=16384),
        "j2k-one-pixel-precincts": _jpeg2000(960, 960, coding=b"\1\0\0\1\0\5\4\4\0\0" + b"\0" * 6),
        "j2k-small-blocks": _jpeg2000(960, 960, coding=b"\0\0\0\1\0\5\0\0\0\0"),
        "j2k-layers": _jpeg2000(960, 960, coding=b"\0\0\xff\xff\0\x20\4\4\0\0"),
        "j2k-header-alone": _jpeg2000(8, 8)[:60],
        "j2k-many-comments": _jpeg2000(8, 8, before=b"\xff\x64\0\4\0\0" * 150_000),
        # not images
        "empty": b"",
        "one-byte": b"\x89",
        "text": b"hello",
        "garbage": garbage,
        "zeros": bytes(_MIB - 1),
        "gzip": gzip.compress(plain),
        "svg-with-entity": b"<!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/etc/passwd) run\n",
        "pickle": b"cposix\nsystem\n(S'true'\ntR.",
    }  # fmt: skip


def _with_sizes(data: bytes, old: int | tuple[int, int], new: int | tuple[int, int]) -> bytes:
    """Replaces a width and height, or a height and width, that the container announces."""
    was, becomes = (struct.pack(">II", *(each if isinstance(each, tuple) else (each, each))) for each in (old, new))
    assert data.count(was) == 1
    return data.replace(was, becomes)


def _avif_parts(content: bytes, items: int) -> bytes:
    """An AVIF file of ``items`` AV1 images that share their data; the first is shown."""
    original = encode(gradient(16, 12), "AVIF")

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I", 8 + len(body)) + kind + body

    start = original.index(b"iprp") - 4
    properties = original[start : start + int.from_bytes(original[start : start + 4])]
    entries = [box(b"infe", b"\2\0\0\0", struct.pack(">HH4sB", each, 0, b"av01", 0)) for each in range(1, items + 1)]
    head = box(b"ftyp", b"avif\0\0\0\0avifmif1miaf")

    def meta(offset: int) -> bytes:
        places = [struct.pack(">HHHII", each, 0, 1, offset, len(content)) for each in range(1, items + 1)]
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), b"\0\1"),
            box(b"iloc", bytes(4), b"\x44\0", struct.pack(">H", items), *places),
            box(b"iinf", bytes(4), struct.pack(">H", items), *entries),
            properties,
        )

    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", content)


def _av1() -> bytes:
    """The AV1 data of a small image."""
    data = encode(gradient(16, 12), "AVIF")
    return data[data.index(b"mdat") + 4 :]


def avif_with_frames(count: int) -> bytes:
    """An AVIF file whose image consists of ``count`` frames."""
    units = _av1()
    sequence = units[: units.index(b"\x32")]
    return _avif_parts(sequence + units[len(sequence) :] * count, 1)


def avif_with_items(count: int) -> bytes:
    """An AVIF file with ``count`` AV1 images."""
    return _avif_parts(_av1(), count)


def _jpeg2000(
    width: int,
    height: int,
    *,
    tile: int = 0,
    channels: int = 1,
    coding: bytes = b"\0\0\0\1\0\5\4\4\0\0",
    before: bytes = b"",
) -> bytes:
    """A JPEG 2000 codestream with one empty tile-part; ``tile`` is the side of tiles, 0: one tile."""
    sides = (tile or width, tile or height)
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, *sides, 0, 0, channels) + b"\7\1\1" * channels
    quantization = bytes([0x40]) + bytes(3 * (coding[5] & 31) + 1)
    header = _segment(0x51, size) + before + _segment(0x52, coding) + _segment(0x5C, quantization)
    return b"\xff\x4f" + header + _segment(0x90, struct.pack(">HIBB", 0, 14, 0, 1)) + b"\xff\x93\xff\xd9"


def _webp_with_canvas(side: int) -> bytes:
    """Two small frames on a large canvas."""
    frames = [Image.new("RGB", (8, 8), level) for level in ("red", "blue")]
    data = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    return _put(data, data.index(b"VP8X") + 12, (side - 1).to_bytes(3, "little") * 2)


def _many_directories(count: int) -> bytes:
    """A chain of directories, each of which describes the same 8 × 8 image."""
    tags = _tiff_tags(8, 8, strips=(4, 1, 8), strip_bytes=(4, 1, 64))
    entries = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, *value) for tag, value in sorted(tags.items())
    )
    step, first = len(entries) + 4, 8 + 64
    chain = b"".join(entries + struct.pack("<I", first + (index + 1) * step) for index in range(count - 1))
    return b"II*\0" + struct.pack("<I", first) + bytes(64) + chain + entries + bytes(4)


def _many_tags() -> bytes:
    """20,000 tags that all claim the same half megabyte."""
    size = 500_000
    tags = _tiff_tags(8, 8, strips=(4, 1, 8), strip_bytes=(4, 1, 64)) | {
        40_000 + index: (1, size, 8) for index in range(20_000)
    }
    return tiff(tags, bytes(size))


def _tile_bomb(width: int, height: int, mebibytes: int) -> bytes:
    """An 8 × 8 image in one deflated tile of another size."""
    packed = _zeros(mebibytes * _MIB)
    tags = _tiff_tags(
        8, 8, compression=(3, 1, 8), tile_width=(4, 1, width), tile_height=(4, 1, height),
        tiles=(4, 1, 8), tile_bytes=(4, 1, len(packed)),
    )  # fmt: skip
    return tiff(tags, packed)


FILE_NAMES: Final = (
    "a\0b.png", "a\r\nX-Injected: 1\r\n.png", 'a"b";c.png', "../../../etc/passwd", "..\\..\\boot.ini", "\u202egnp.exe",
    "\N{GRINNING FACE}.png", "n" * 10_000, "", " ", "%00%0d%0a", "a;filename=b", "<script>alert(1)</script>.png",
    "=cmd|'/c calc'!A1", "\x7f\x1b[31m.png", "con.png", "größe.png",
)  # fmt: skip


# --- memory of a process --------------------------------------------------------------------------------------------


def resident_bytes(process: int) -> int:
    """The memory that a process uses now."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096


def peak_bytes(process: int) -> int:
    """The most memory that a process has used since :func:`forget_peak`."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def forget_peak(process: int) -> None:
    """Resets :func:`peak_bytes`."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
