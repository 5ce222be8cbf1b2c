"""Untrusted image files to model input. Serving and training on image folders share this code.

Opening reads the header and checks it against the limits. Decoding converts the pixels to the model's input.
Both may be called from any thread.
"""

import io
import math
from importlib import import_module
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, ImageColor, TiffImagePlugin
from PIL import ImageFile as PillowFile
from PIL.ExifTags import Base as ExifTag

from app.files import formats
from app.inference.errors import TooManyPixels, UnreadableImage
from app.inference.images import deep, resampling
from app.inference.images.codecs import avif, bmp, jpeg, jpeg2000, metadata, png, unsupported, webp
from app.inference.images.codecs.jpeg import JpegFile
from app.inference.images.codecs.plain_png import read_plain_pngs
from app.inference.images.deep import DeepImage
from app.inference.images.model_input import DecodedImage, Fit, InputSpec, Levels, Pixels
from app.inference.images.resampling import Box

# Pillow's own limit is global, independent of ours, and only warns. open_image() compares every header with its
# caller's limit before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

# Pillow reads uncompressed TIFF images strip by strip in Python: half a minute and a gigabyte for four million strips.
# libtiff, which Pillow uses for compressed ones anyway, takes a second.
TiffImagePlugin.READ_LIBTIFF = True

bmp.install()

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # images are decoded in parallel, each in one thread

if formats.HAS_HEIC:
    import_module(formats.HEIC_PACKAGE).register_heif_opener()

_UPRIGHT: Final = 1
_OPAQUE: Final = {"L", "RGB", "RGBX"}
_LYING: Final = range(5, 9)  # EXIF orientations that exchange width and height
_TRANSPOSITIONS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the transposition that makes the image upright."""
_SIDEWAYS: Final = {5, 6, 7, 8}  # the orientations that exchange width and height
_FROM_THE_RIGHT: Final = {2, 3, 6, 7}  # those whose first column was the file's last column or row
_FROM_THE_BOTTOM: Final = {3, 4, 7, 8}  # those whose first row was

# Pillow accepts a PNG without its end, and decodes missing rows as black.
_PNG_END: Final = b"IEND\xaeB`\x82"
_JPEG: Final = {"JPEG", "MPO"}  # Pillow's name for JPEG files with several pictures, such as a preview or a second view
_MAX_PARTS: Final = 4  # of an AVIF file, in multiples of the largest image: picture, alpha, gain map, thumbnail
_CHANGES: Final[dict[Fit, str]] = {
    "stretch": ", which changed its proportions",
    "pad": ", padded to keep its proportions",
    "crop": ", cropped to keep its proportions",
}
_NOTICEABLE_COLOUR: Final = 8  # in levels; the channels of grey images that were saved as JPEG differ by less
_COLOUR_TO_GREY: Final = "colour was converted to grey"
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as in Pillow


class ValueRange(NamedTuple):
    """The range of an image's values, in the units of the file.

    Attributes:
        used: lowest and highest value of the image.
        full: lowest and highest value of their type; of floating point 0 and 1.
        is_float: whether they are floating point.
    """

    used: Levels
    full: Levels
    is_float: bool


class ImageFile:
    """An image file whose header is read and within the limits; its pixels are not decoded yet.

    Args:
        source: the opened file, or its pixels if they are already decoded: (C, H, W) 8-bit levels.
        pixels: width × height of what is decoded, which can be larger than the image.
        data: the whole file; not needed for pixels.
        structure: of a JPEG file.

    Attributes:
        pixels: see above.
    """

    def __init__(
        self,
        source: Image.Image | NDArray[np.uint8],
        pixels: int,
        data: bytes = b"",
        structure: JpegFile | None = None,
    ) -> None:
        self.pixels = pixels
        self._source = source
        self._data = data
        self._structure = structure

    @classmethod
    def of_levels(cls, levels: NDArray[np.uint8]) -> Self:
        """An image whose pixels are already decoded: (C, H, W) 8-bit levels."""
        return cls(levels, math.prod(levels.shape[1:]))

    def decode(self, spec: InputSpec) -> DecodedImage:
        """Decodes the first frame, applies the EXIF orientation, flattens transparency, scales the values, and resizes.

        Args:
            spec: size and colour mode of the result, and how images are brought to it.

        Raises:
            UnreadableImage: the pixel data is damaged, truncated or not finite.
        """
        source = self._source
        if isinstance(source, np.ndarray):
            if source.shape == spec.shape:
                return DecodedImage(source)
            levels = np.moveaxis(source, 0, -1)
            return _Conversion(spec).run_plain(Image.fromarray(levels[..., 0] if len(source) == 1 else levels))
        try:
            return _Conversion(spec).run(source, self._data, self._structure)
        except UnreadableImage:
            raise
        except MemoryError as error:
            raise UnreadableImage("decoding the image takes more memory than its header announces") from error
        # Hostile files can make Pillow's parsers raise almost any exception; the cause is always the file.
        except Exception as error:
            raise UnreadableImage(f"the image cannot be decoded: {_reason(error)}") from error

    def value_range(self) -> ValueRange | None:
        """The range of the values of an image of more than 8 bits per channel; None: it has 8 bits or less.

        Raises:
            UnreadableImage: the pixel data is damaged, truncated or not finite.
        """
        source = self._source
        if isinstance(source, np.ndarray) or not deep.is_deep(source):
            return None
        try:
            deep.correct_order(source)
            layout, low = deep.Layout.of(source, self._data), deep.low_bytes(source, self._data)
            source.load()
            image = deep.read(source, low, layout)
            return ValueRange(image.used, image.full, image.bits is None)
        except UnreadableImage:
            raise
        except Exception as error:  # as in decode
            raise UnreadableImage(f"the image cannot be decoded: {_reason(error)}") from error


def open_image(data: bytes, *, max_pixels: int) -> ImageFile:
    """Reads an image file's header. The format is detected from the content, not from the name; see ``formats``.

    Args:
        data: the whole file.
        max_pixels: the largest width × height that is accepted.

    Raises:
        UnreadableImage: the file is not an image of a supported format, or is incomplete or hostile.
        TooManyPixels: the header announces more than ``max_pixels``.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    (plain,) = read_plain_pngs([data], max_pixels=max_pixels)
    if plain is not None:
        return ImageFile.of_levels(plain)
    metadata.check(data)
    image = _open(data)
    pixels = _check_size(image, data, max_pixels)
    if image.format == "PNG" and data.rfind(_PNG_END) < 0:  # searched from the end, where complete files have it
        raise UnreadableImage("the image is truncated: its end is missing")
    return ImageFile(image, pixels, data, jpeg.read_structure(data) if image.format in _JPEG else None)


def decode(data: bytes, spec: InputSpec, *, max_pixels: int) -> DecodedImage:
    """Opens and decodes an image file, as :func:`open_image` and :meth:`ImageFile.decode` do.

    Raises:
        UnreadableImage: the file is not an image of a supported format, or is damaged or hostile.
        TooManyPixels: the header announces more than ``max_pixels``.
    """
    return open_image(data, max_pixels=max_pixels).decode(spec)


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=formats.NAMES)
        preview = unsupported.camera_raw(data, getattr(image, "tag_v2", {}))
    except Exception as error:  # as in ImageFile.decode
        reason = (
            unsupported.describe(data)
            or unsupported.tiff_kind(data)
            or f"not a readable image of the formats {', '.join(formats.NAMES)}"
        )
        raise UnreadableImage(reason) from error
    if preview:
        raise UnreadableImage(preview)
    return image


def _check_size(image: Image.Image, data: bytes, max_pixels: int) -> int:
    """The width × height of what will be decoded, which is not more than allowed."""
    width, height = _announced_size(image, data)
    if width * height > max_pixels:
        raise TooManyPixels(f"the image has {width} × {height} = {width * height:,} pixels, more than {max_pixels:,}")
    frames = avif.frames(data) if image.format == "AVIF" else avif.Frames(0, 0)
    if frames.largest > max_pixels or frames.total > _MAX_PARTS * max_pixels:
        raise TooManyPixels(f"the AVIF file has frames of {frames.total:,} pixels in total, too many for an image")
    if image.width * image.height == 0:
        raise UnreadableImage(f"the image has no pixels: it is {image.width} × {image.height}")
    if image.format == "HEIF":  # its header does not tell what the data inside it say
        return max_pixels
    return max(width * height, frames.total)


def _announced_size(image: Image.Image, data: bytes) -> tuple[int, int]:
    """The width and height that the decoder would allocate.

    Of the image; or of one TIFF tile, or of the JPEG 2000 codestream, if that is larger.
    """
    if image.format == "JPEG2000":
        header = jpeg2000.read_header(data)
        return max(image.size, (header.width, header.height), key=math.prod)
    tags = getattr(image, "tag_v2", {})
    tile = (tags.get(TiffImagePlugin.TILEWIDTH, 0), tags.get(TiffImagePlugin.TILELENGTH, 0))
    return max(image.size, tile, key=math.prod)


class _Conversion:
    """Converts one image to model input and collects warnings."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.warnings: list[str] = []
        self._size: tuple[int, int] | None = None

    def run(self, image: Image.Image, data: bytes, structure: JpegFile | None) -> DecodedImage:
        if structure is None and getattr(image, "is_animated", False):
            image.seek(0)
            self.warnings.append("only the first of several frames was used")
        deep.correct_order(image)
        layout = deep.Layout.of(image, data) if deep.is_deep(image) else None
        low = deep.low_bytes(image, data)
        if image.format == "PNG" and isinstance(image, PillowFile.ImageFile):
            png.load(image, data)  # before its orientation is read: the EXIF chunk may follow the pixels
        orientation = _orientation(image) if image.info else _UPRIGHT
        size = self._size = image.size[::-1] if orientation in _LYING and image.format != "TIFF" else image.size
        scale = resampling.FULL
        if structure is not None and isinstance(image, PillowFile.ImageFile):
            scale = resampling.jpeg_scale(*size, self.spec)
            self.warnings += structure.load(image, scale)
        elif image.format == "WEBP" and isinstance(image, PillowFile.ImageFile):
            image = webp.load(image, data)
        else:
            image.load()
        if orientation in _TRANSPOSITIONS:
            if image.format != "TIFF":  # Pillow turns TIFF images upright while loading
                low = low and low.transpose(_TRANSPOSITIONS[orientation])
                image = image.transpose(_TRANSPOSITIONS[orientation])
            self.warnings.append("turned upright according to the EXIF orientation")
        if layout is None:
            box = None if scale == resampling.FULL else _box(image, size, scale, orientation)
            return self.run_plain(self._flatten(image), box, scale)
        values = deep.read(image, low, layout)
        del low
        return self._run_deep(values)

    def run_plain(self, image: Image.Image, box: Box | None = None, scale: int = resampling.FULL) -> DecodedImage:
        """Converts an upright, opaque image of mode L, RGB or RGBX.

        Args:
            image: as decoded.
            box: where the image is in what was decoded; None: it is all of it.
            scale: the divisor of its size at which it was decoded.
        """
        size = self._size or image.size
        return DecodedImage(self._pixels(self._resize(image, box, scale)), tuple(self.warnings), size)

    def _flatten(self, image: Image.Image) -> Image.Image:
        """Any Pillow mode of 8 bits or less → an opaque image of the same size: L, RGB or RGBX."""
        self.warnings += deep.lost_values(image)
        if image.has_transparency_data:
            rgba = image if image.mode == "RGBA" else image.convert("RGBA")
            alpha = rgba.getchannel("A")
            if alpha.getextrema() != (255, 255):
                self._warn_of_transparency()
                flat = Image.new("RGB", rgba.size, self.spec.background)
                flat.paste(rgba, mask=alpha)
                return flat
            return rgba.convert("RGB")
        if deep.is_signed_byte(image):
            return Image.fromarray(np.asarray(image) ^ np.uint8(128))
        if image.mode in _OPAQUE:
            return image
        return image.convert("L" if image.mode == "1" else "RGB")

    def _warn_of_transparency(self) -> None:
        self.warnings.append(f"transparency was flattened onto {self.spec.background}")

    def _run_deep(self, image: DeepImage) -> DecodedImage:
        """Converts an upright image of more than 8 bits, channel by channel to save memory."""
        self.warnings += image.warnings(self.spec.levels)
        if image.is_transparent:
            self._warn_of_transparency()
        behind = ImageColor.getcolor(self.spec.background, "RGB" if len(image.channels) > 1 else "L")
        scaled = image.scaled(self.spec.levels or image.full, behind if isinstance(behind, tuple) else (behind,))
        # Resampling can overshoot by rounding.
        channels = [np.clip(np.asarray(self._resize(Image.fromarray(channel))), 0, 1) for channel in scaled]
        pixels: NDArray[np.float32] = np.stack(channels)
        if len(pixels) == 1:
            pixels = pixels.repeat(self.spec.channels, axis=0)
        elif self.spec.mode == "L":
            if np.ptp(pixels, axis=0).max() > _NOTICEABLE_COLOUR / 255:
                self.warnings.append(_COLOUR_TO_GREY)
            pixels = np.tensordot(_LUMA, pixels, axes=1)[None]
        return DecodedImage(pixels, tuple(dict.fromkeys(self.warnings)), self._size)  # each channel was resized

    def _resize(self, image: Image.Image, box: Box | None = None, scale: int = resampling.FULL) -> Image.Image:
        to_width, to_height = size = (self.spec.width, self.spec.height)
        if image.size == size and box is None:
            return image
        left, top, right, bottom = box = box or resampling.whole(image)
        width, height = round((right - left) * scale), round((bottom - top) * scale)
        change = "" if width * to_height == height * to_width else _CHANGES[self.spec.fit]
        self.warnings.append(f"resized from {width}×{height} to {to_width}×{to_height}{change}")
        return resampling.fitted(image, box, self.spec)

    def _pixels(self, image: Image.Image) -> Pixels:
        if image.mode not in {"L", "RGB"}:
            image = image.convert("RGB")  # when it is small
        if image.mode == "RGB" and self.spec.mode == "L":
            if _largest_channel_difference(np.asarray(image)) > _NOTICEABLE_COLOUR:
                self.warnings.append(_COLOUR_TO_GREY)
            image = image.convert("L")
        levels = np.asarray(image if image.mode == self.spec.mode else image.convert(self.spec.mode))
        return levels[None] if self.spec.mode == "L" else np.moveaxis(levels, -1, 0)


def _largest_channel_difference(rgb: NDArray[np.uint8]) -> int:
    wide = rgb.astype(np.int16)
    return int((wide.max(axis=2) - wide.min(axis=2)).max())


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; upright if the EXIF data is missing or damaged."""
    try:
        return int(image.getexif().get(ExifTag.Orientation, _UPRIGHT))
    except Exception:  # as in ImageFile.decode
        return _UPRIGHT


def _box(image: Image.Image, size: tuple[int, int], scale: int, orientation: int) -> Box:
    """Where an upright image of a size is in what was decoded at a fraction of it.

    libjpeg completes the last column and row of the file, which the transposition may have made the first.
    """
    width, height = (side / scale for side in size)
    left = image.width - width if orientation in _FROM_THE_RIGHT else 0
    top = image.height - height if orientation in _FROM_THE_BOTTOM else 0
    return (left, top, left + width, top + height)


def _reason(error: Exception) -> str:
    """A parser's message on one line, at most 200 characters, without object addresses."""
    text = " ".join(str(error).split())
    return text.split(" <")[0][:200] or type(error).__name__
