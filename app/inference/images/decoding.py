"""Untrusted bytes → image → tensor. The one decode path of serving and of training on image folders.

Opening reads the header alone and checks it against the limits; decoding turns the pixels into the
float32 tensor that a model eats. Both may be called from any thread.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from PIL.ExifTags import Base as ExifTag
from pydantic import BaseModel, ConfigDict, Field

from app.inference.errors import TooManyPixels, UnreadableImage
from app.inference.images.plain_png import read_plain_pngs

SIDES: Final = (4, 2048)
"""The least and the most pixels on a side of a model's input."""

FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

# Pillow's own bomb guard is a process-wide constant that knows nothing of our setting, and it warns where
# we must refuse. open_image() compares every header with the caller's limit before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

# Pillow reads uncompressed TIFF images strip by strip in Python: a file of four million strips takes it half a
# minute and a gigabyte. libtiff, which reads the compressed ones anyway, takes a second.
TiffImagePlugin.READ_LIBTIFF = True

_UPRIGHT: Final = 1
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""

_WHITE_IS_ZERO: Final = 0
# Pillow forgives a PNG that lacks its end; what was cut off before it may have been seen as black.
_PNG_END: Final = b"IEND\xaeB`\x82"
# Every scan of a JPEG goes through all its blocks, and a scan that says nothing takes 14 bytes: a file of a megabyte
# could keep a processor for minutes. Encoders make ten scans or so; libtiff draws the line for its JPEGs here too.
_MAX_SCANS: Final = 100
_JPEG_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_JPEG_SCAN: Final = b"\xda"
_JPEG_END: Final = b"\xd9"
# Pillow walks through chunks, segments and blocks in Python, some microseconds each. Real files need a read for some
# hundred bytes; those made of crumbs are given up in a few seconds, however large they are.
_MAX_READS: Final = 2_000_000
_WHITE: Final = np.float32(255)
_NOTICEABLE_COLOUR: Final = 8  # grey images saved as JPEG have channels that differ by a few levels


class InputSpec(BaseModel):
    """What an image is made into before a model sees it: (channels, height, width), float32 in [0, 1].

    Grey models see ITU-R 601 luma. Images of another size are resampled with an antialiased bilinear
    filter to exactly height × width; proportions are not kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["L", "RGB"] = Field(description="L: one grey channel; RGB: three colour channels")
    height: int = Field(ge=SIDES[0], le=SIDES[1])
    width: int = Field(ge=SIDES[0], le=SIDES[1])

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.mode == "L" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)

    @property
    def levels_shape(self) -> tuple[int, ...]:
        """Of an image's levels of eight bits: (height, width) or (height, width, 3)."""
        return (self.height, self.width) if self.mode == "L" else (self.height, self.width, 3)


class Decoded(NamedTuple):
    """An image as the model sees it.

    Attributes:
        pixels: (H, W) or (H, W, 3) levels of eight bits, for one channel or three; or (C, H, W) float32 in [0, 1].
        warnings: short sentences on what was done to the image on the way.
    """

    pixels: NDArray[np.uint8] | torch.Tensor
    warnings: tuple[str, ...]

    @property
    def tensor(self) -> torch.Tensor:
        """(C, H, W) float32 in [0, 1]."""
        return self.pixels if isinstance(self.pixels, torch.Tensor) else _scaled(self.pixels[None])[0]


def stack(images: Sequence[Decoded]) -> torch.Tensor:
    """Images of one size as a batch: (N, C, H, W) float32 in [0, 1]."""
    levels = [image.pixels for image in images if isinstance(image.pixels, np.ndarray)]
    if len(levels) < len(images):
        return torch.stack([image.tensor for image in images])
    # At once: one by one, their way into tensors would take as long as their decoding.
    return _scaled(np.concatenate(levels).reshape(len(levels), *levels[0].shape))


def unit_values(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a model sees for levels of eight bits: float32 in [0, 1] of the same shape."""
    return np.divide(levels, _WHITE, dtype=np.float32)


def _scaled(levels: NDArray[np.uint8]) -> torch.Tensor:
    """(N, H, W) or (N, H, W, 3) levels of eight bits → (N, C, H, W) float32 in [0, 1]."""
    values = unit_values(levels)
    channels = values[:, None] if values.ndim == 3 else np.ascontiguousarray(values.transpose(0, 3, 1, 2))  # noqa: PLR2004
    return torch.from_numpy(channels)


class ImageFile:
    """An image file whose header is read and within the limits, its pixels not yet decoded.

    Args:
        source: the image; or its pixels, where these were simple to read: (H, W) grey or (H, W, 3) colour.
    """

    def __init__(self, source: Image.Image | NDArray[np.uint8]) -> None:
        self._source = source

    @property
    def pixels(self) -> int:
        """Width × height of the file's image."""
        if isinstance(self._source, np.ndarray):
            height, width, *_ = self._source.shape
            return int(height * width)
        return self._source.width * self._source.height

    def decode(self, spec: InputSpec) -> Decoded:
        """Decodes, turns upright, flattens transparency onto black, converts and resizes.

        Raises:
            UnreadableImage: the pixel data is damaged or truncated, or holds values that are no numbers.
        """
        source = self._source
        if isinstance(source, np.ndarray):
            if source.shape == spec.levels_shape:
                return Decoded(source, ())
            return _Conversion(spec).run_plain(Image.fromarray(source))
        try:
            return _Conversion(spec).run(source)
        except UnreadableImage:
            raise
        # Hostile files make Pillow's parsers raise almost anything; whatever it was, it is the file's fault.
        except Exception as error:
            raise UnreadableImage(f"the image cannot be decoded: {_reason(error)}") from error


def open_image(data: bytes, *, max_pixels: int) -> ImageFile:
    """Reads an image file's header: PNG, JPEG, WebP, BMP, GIF or TIFF, told by content, not by name.

    Args:
        data: the whole file.
        max_pixels: the largest width × height that is accepted.

    Raises:
        UnreadableImage: no image of these formats.
        TooManyPixels: the header announces more than ``max_pixels``.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    (plain,) = read_plain_pngs([data], max_pixels=max_pixels)
    if plain is not None:
        return ImageFile(plain)
    try:
        image = Image.open(_file(data), formats=FORMATS)
        width, height = _announced_size(image)
    except Exception as error:  # as in ImageFile.decode
        raise UnreadableImage(f"not a readable image of the formats {', '.join(FORMATS)}") from error
    if width * height > max_pixels:
        raise TooManyPixels(f"the image has {width} × {height} = {width * height:,} pixels, more than {max_pixels:,}")
    if image.format == "PNG" and data.rfind(_PNG_END) < 0:  # it stands at the end of sound files
        raise UnreadableImage("the image is truncated: its end is missing")
    if image.width * image.height == 0:
        raise UnreadableImage(f"the image is {image.width} × {image.height} pixels: there is nothing to see")
    if image.format in {"JPEG", "MPO"} and _has_too_many_scans(data):
        raise UnreadableImage(f"the image is coded in more than {_MAX_SCANS} scans")
    return ImageFile(image)


def _file(data: bytes) -> io.BytesIO:
    return io.BytesIO(data) if len(data) <= _MAX_READS else _RationedFile(data)


class _RationedFile(io.BytesIO):
    """Bytes that can be read only so often."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise OSError("the file is made of too many pieces")
        return super().read(size)


def _announced_size(image: Image.Image) -> tuple[int, int]:
    """What the header asks memory for: the image, or one tile of a TIFF where that is larger."""
    tags = getattr(image, "tag_v2", {})
    tile = (tags.get(TiffImagePlugin.TILEWIDTH, 0), tags.get(TiffImagePlugin.TILELENGTH, 0))
    return max(image.size, tile, key=math.prod)


def _has_too_many_scans(jpeg: bytes) -> bool:
    """Counts the scans up to the image's end, segment by segment: what lies inside of one is not looked at."""
    scans, at = 0, 2
    while scans <= _MAX_SCANS and (marker := _JPEG_MARKER.search(jpeg, at)) and marker[1] != _JPEG_END:
        scans += marker[1] == _JPEG_SCAN
        at = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2])
    return scans > _MAX_SCANS


class _Conversion:
    """One image's way to a tensor; collects what is worth telling."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.warnings: list[str] = []

    def run(self, image: Image.Image) -> Decoded:
        if getattr(image, "is_animated", False):
            image.seek(0)
            self.warnings.append("only the first of several frames was used")
        if image.format == "PNG":
            image.load()  # its EXIF may stand behind the pixels
        orientation = _orientation(image) if image.info else _UPRIGHT
        bits = _integer_bits(image)
        image.load()
        if orientation in _TURNS:
            if image.format != "TIFF":  # these turn themselves upright while loading
                image = image.transpose(_TURNS[orientation])
            self.warnings.append("turned upright as the EXIF orientation says")
        return self.run_plain(self._flatten(image, bits))

    def run_plain(self, image: Image.Image) -> Decoded:
        """An upright, opaque image of mode L, RGB or F."""
        return Decoded(self._pixels(self._resize(image)), tuple(self.warnings))

    def _flatten(self, image: Image.Image, bits: int) -> Image.Image:
        """Any Pillow mode → an opaque L, RGB or F (grey, already in [0, 1]) image of the same size."""
        if image.mode.startswith("I") or image.mode == "F":
            return self._flatten_deep(image, bits)
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            alpha = rgba.getchannel("A")
            if alpha.getextrema() != (255, 255):
                self.warnings.append("transparency was flattened onto black")
                flat = Image.new("RGB", rgba.size)
                flat.paste(rgba, mask=alpha)
                return flat
            return rgba.convert("RGB")
        if image.mode in {"L", "RGB"}:
            return image
        return image.convert("L" if image.mode == "1" else "RGB")

    def _flatten_deep(self, image: Image.Image, bits: int) -> Image.Image:
        """16- and 32-bit integers are scaled by their type's range; floats are taken to be in [0, 1]."""
        values = np.asarray(image)
        if values.dtype.kind == "f":
            if not np.isfinite(values).all():
                raise UnreadableImage("the image holds values that are not finite numbers")
            if values.min() < 0 or values.max() > 1:
                self.warnings.append("floating-point values outside [0, 1] were clipped")
            grey = np.clip(values, 0, 1)
        else:
            unsigned = values.view(np.uint32) if bits > 16 and values.dtype == np.int32 else values  # noqa: PLR2004
            grey = unsigned.astype(np.float32)
            grey /= 2**bits - 1
            np.clip(grey, 0, 1, out=grey)
            if getattr(image, "tag_v2", {}).get(ExifTag.PhotometricInterpretation) == _WHITE_IS_ZERO:
                grey = 1 - grey  # Pillow turns such TIFF images round for 8 bits alone
            key = image.info.get("transparency")
            if isinstance(key, int) and (values == key).any():
                self.warnings.append("transparency was flattened onto black")
                grey = np.where(values == key, 0, grey)
        return Image.fromarray(grey)

    def _resize(self, image: Image.Image) -> Image.Image:
        size = (self.spec.width, self.spec.height)
        if image.size == size:
            return image
        (width, height), (to_width, to_height) = image.size, size
        stretched = "" if width * to_height == height * to_width else ", which changed its proportions"
        self.warnings.append(f"resized from {width}×{height} to {to_width}×{to_height}{stretched}")
        return image.resize(size, Image.Resampling.BILINEAR)

    def _pixels(self, image: Image.Image) -> NDArray[np.uint8] | torch.Tensor:
        if image.mode == "RGB" and self.spec.mode == "L":
            low, high = _channel_range(np.asarray(image))
            if (high - low).max() > _NOTICEABLE_COLOUR:
                self.warnings.append("colour was converted to grey")
            image = image.convert("L")
        if image.mode == "F":
            values = np.clip(np.asarray(image), 0, 1)  # resampling may overshoot by a rounding error
            return torch.from_numpy(values[None].repeat(self.spec.channels, axis=0))
        return np.asarray(image if image.mode == self.spec.mode else image.convert(self.spec.mode))


def _channel_range(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    wide = rgb.astype(np.int16)
    return wide.min(axis=2), wide.max(axis=2)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; damaged EXIF data says nothing and is no reason to refuse the image."""
    try:
        return int(image.getexif().get(ExifTag.Orientation, _UPRIGHT))
    except Exception:  # as in ImageFile.decode
        return _UPRIGHT


def _integer_bits(image: Image.Image) -> int:
    """Bits per sample of a deep grey image; Pillow's mode alone does not say."""
    samples = getattr(image, "tag_v2", {}).get(ExifTag.BitsPerSample, (16,))
    return int(max(samples))


def _reason(error: Exception) -> str:
    """A parser's complaint on one line, without object addresses."""
    text = " ".join(str(error).split())
    return text.split(" <")[0][:200] or type(error).__name__
