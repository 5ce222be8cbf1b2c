"""Valid image files of all formats."""

from functools import cache

import numpy as np
from PIL import Image, ImageCms
from PIL.ExifTags import Base as ExifTag

from tests.hostile import bmp, png, tiff, tiff_tags
from tests.support import encode, gradient

_COLOUR, _GREY_ALPHA, _COLOUR_ALPHA = 2, 4, 6


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
            tiff_tags(8, 8, bits=(3, 1, 16), strips=(4, 1, 8), strip_bytes=(4, 1, 128)) | {339: (3, 1, 2)},
            bytes(range(128)),
        ),
        "bmp-rle8": bmp(8, 4, compression=1, pixels=b"\x08\x05\0\0" * 4 + b"\0\1"),
        "bmp-rle4": bmp(8, 4, compression=2, bits=4, pixels=b"\x08\x15\0\0" * 4 + b"\0\1"),
    }
