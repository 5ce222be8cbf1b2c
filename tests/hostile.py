"""Hostile image files. The service must score or reject each of them quickly, in little memory."""

import gzip
import struct
import zlib
from functools import cache
from typing import Final

import numpy as np
from PIL import Image

from tests.support import encode, gradient

_MIB: Final = 2**20
PNG: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6


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
    return PNG + header + b"".join(before) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


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


def tiff_tags(width: int, height: int, **more: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
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


def jpeg_segments(count: int, content: bytes, marker: int = 0xE1) -> bytes:
    """A JPEG file with ``count`` application segments of the same content."""
    return b"\xff\xd8" + _segment(marker, content) * count + encode(gradient(16, 12), "JPEG")[2:]


def png_of_pieces(width: int, height: int, size: int) -> bytes:
    """A PNG file of noise whose pixels come in chunks of ``size`` bytes."""
    levels = np.random.default_rng(0).integers(0, 256, (height, 1 + width), dtype=np.uint8)
    levels[:, 0] = 0
    packed = zlib.compress(levels.tobytes())
    pieces = [chunk(b"IDAT", packed[at : at + size]) for at in range(0, len(packed), size)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return PNG + header + b"".join(pieces) + chunk(b"IEND", b"")


def jp2_with_boxes(count: int) -> bytes:
    """A JPEG 2000 file with ``count`` empty boxes before its header."""
    data = encode(gradient(16, 12), "JPEG2000")
    at = data.index(b"jp2h") - 4
    return data[:at] + (struct.pack(">I", 8) + b"free") * count + data[at:]


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
    tags = tiff_tags
    raw_gif = gif(8, 8)
    exif_loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
    profile = chunk(b"iCCP", b"p\0\0" + _zeros(_MIB - 9))
    not_text = chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"\xff" * (_MIB - 9), 9))
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
        "png-profiles": png(8, 8, *[profile] * 15_800),
        "png-texts-that-are-no-text": png(8, 8, *[not_text] * 900),
        "png-crumbs": png_of_pieces(16, 16, 1),
        "jpeg-exif-segments": jpeg_segments(200_000, b"Exif\0\0" + bytes(20)),
        "jpeg-segments-between-scans": many_scans(64, 64, 0)[:-2] + _segment(0xFE, b"") * 1_000_000 + b"\xff\xd9",
        "jpeg-restart-markers": encode(grey, "JPEG", restart_marker_rows=1)[:-2] + b"\xff\xd0" * 4_000_000,
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
        "bmp-rle-rows-that-end": bmp(999, 999, compression=1, pixels=b"\1\1\0\0" * 999),
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
        "avif-extents": avif_with_extents(60_000, 200),
        "avif-empty-boxes": encode(grey, "AVIF") + (struct.pack(">I", 8) + b"free") * 300_000,
        "jp2-empty-boxes": jp2_with_boxes(300_000),
        "webp-empty-chunks": webp((b"VP8X", bytes(4) + bytes(6)), *[(b"junk", b"")] * 300_000),
        "tiff-more-tags": tiff({40_000 + index: (1, 1, 0) for index in range(20_000)} | tags(8, 8)),
        "tiff-strips": tiff(tags(4, 4, strips=(4, 2_000_000, 8), strip_bytes=(4, 2_000_000, 8)), bytes(8_000_000)),
        "gif-spaces": gif(8, 8, b" " * 1_500_000),
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


def _avif_parts(content: bytes, items: int, extents: int = 1) -> bytes:
    """An AVIF file of ``items`` AV1 images that share their data, in ``extents`` pieces; the first is shown."""
    original = encode(gradient(16, 12), "AVIF")

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I", 8 + len(body)) + kind + body

    start = original.index(b"iprp") - 4
    properties = original[start : start + int.from_bytes(original[start : start + 4])]
    entries = [box(b"infe", b"\2\0\0\0", struct.pack(">HH4sB", each, 0, b"av01", 0)) for each in range(1, items + 1)]
    head = box(b"ftyp", b"avif\0\0\0\0avifmif1miaf")

    def meta(offset: int) -> bytes:
        step = len(content) // extents
        pieces = b"".join(struct.pack(">II", offset + index * step, step) for index in range(extents))
        places = [struct.pack(">HHH", each, 0, extents) + pieces for each in range(1, items + 1)]
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


def avif_with_extents(count: int, size: int) -> bytes:
    """An AVIF file whose image comes in ``count`` pieces of ``size`` bytes."""
    return _avif_parts(_av1().ljust(count * size, b"\0"), 1, count)


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
    at, canvas = data.index(b"VP8X") + 12, (side - 1).to_bytes(3, "little") * 2
    return data[:at] + canvas + data[at + len(canvas) :]


def _many_directories(count: int) -> bytes:
    """A chain of directories, each of which describes the same 8 × 8 image."""
    tags = tiff_tags(8, 8, strips=(4, 1, 8), strip_bytes=(4, 1, 64))
    entries = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, *value) for tag, value in sorted(tags.items())
    )
    step, first = len(entries) + 4, 8 + 64
    chain = b"".join(entries + struct.pack("<I", first + (index + 1) * step) for index in range(count - 1))
    return b"II*\0" + struct.pack("<I", first) + bytes(64) + chain + entries + bytes(4)


def _many_tags() -> bytes:
    """20,000 tags that all claim the same half megabyte."""
    size = 500_000
    tags = tiff_tags(8, 8, strips=(4, 1, 8), strip_bytes=(4, 1, 64)) | {
        40_000 + index: (1, size, 8) for index in range(20_000)
    }
    return tiff(tags, bytes(size))


def _tile_bomb(width: int, height: int, mebibytes: int) -> bytes:
    """An 8 × 8 image in one deflated tile of another size."""
    packed = _zeros(mebibytes * _MIB)
    tags = tiff_tags(
        8, 8, compression=(3, 1, 8), tile_width=(4, 1, width), tile_height=(4, 1, height),
        tiles=(4, 1, 8), tile_bytes=(4, 1, len(packed)),
    )  # fmt: skip
    return tiff(tags, packed)


FILE_NAMES: Final = (
    "a\0b.png", "a\r\nX-Injected: 1\r\n.png", 'a"b";c.png', "../../../etc/passwd", "..\\..\\boot.ini", "\u202egnp.exe",
    "\N{GRINNING FACE}.png", "n" * 10_000, "", " ", "%00%0d%0a", "a;filename=b", "<script>alert(1)</script>.png",
    "=cmd|'/c calc'!A1", "\x7f\x1b[31m.png", "con.png", "größe.png",
)  # fmt: skip
