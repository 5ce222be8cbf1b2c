"""Images of more than 8 bits per channel: their values in the units of the file, and which become black and white.

Pillow reads 16-bit colour as the high bytes only. A second pass with the byte order reversed gives the low ones.
"""

import io
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL import ImageFile as PillowFile
from PIL.ExifTags import Base as ExifTag

from app.inference.errors import UnreadableImage
from app.inference.images.codecs import jpeg2000
from app.inference.images.model_input import Levels

Values: TypeAlias = NDArray[np.uint16] | NDArray[np.int32] | NDArray[np.uint32] | NDArray[np.float32]
"""(H, W), of one channel."""

DEPTHS: Final = (8, 10, 12, 14, 16)
"""Bits per value that cameras use."""

# Pillow's names of the order of bytes: big-endian, little-endian, native.
_GREY_ALPHA: Final = "LA;16B"
_ALL_BYTES: Final = "RGBA"  # grey and alpha, high and low byte, as they are
_DEEP_COLOUR: Final = re.compile(rf"(RGB|RGBA|RGBX);16[BLN]|{_GREY_ALPHA}")
_NATIVE: Final = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
_SWAPPED: Final = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_WHITE_IS_ZERO: Final = 0
_SEPARATE_CHANNELS: Final = 2
_SIGNED: Final = 2
_BYTE: Final = 8
_DEEP_BITS: Final = 16
_OPAQUE: Final = np.uint16(2**16 - 1)
_DARK: Final = 0.25  # of the way from black to white: two bits less than the model expects


@dataclass(frozen=True)
class DeepImage:
    """An image of more than 8 bits per channel.

    Attributes:
        channels: one or three, each (H, W).
        full: lowest and highest value of their type: of integers what their bits can hold, of floating point 0 and 1.
        bits: per value; None: floating point.
        white_is_zero: whether the highest value is black.
        alpha: (H, W) from 0, transparent, to 65535; None: opaque.
    """

    channels: tuple[Values, ...]
    full: Levels
    bits: int | None = None
    white_is_zero: bool = False
    alpha: NDArray[np.uint16] | None = None

    @property
    def is_transparent(self) -> bool:
        """Whether any pixel is not opaque."""
        return self.alpha is not None and bool(self.alpha.min() < _OPAQUE)

    @property
    def used(self) -> Levels:
        """The lowest and highest value of the image.

        Raises:
            UnreadableImage: values are not finite.
        """
        lowest = min(float(channel.min()) for channel in self.channels)
        highest = max(float(channel.max()) for channel in self.channels)
        if not np.isfinite([lowest, highest]).all():  # of NaN, both are NaN
            raise UnreadableImage("the image contains values that are not finite")
        return Levels(lowest, highest)

    def scaled(self, levels: Levels, background: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
        """Each channel as float32 in [0, 1], flattened.

        Args:
            levels: the values that become 0 and 1.
            background: its colour, one level from 0 to 255 per channel.
        """
        for values, behind in zip(self.channels, background, strict=True):
            channel = values.astype(np.float32)
            channel -= np.float32(levels.black)
            channel /= np.float32(levels.white - levels.black)
            np.clip(channel, 0, 1, out=channel)
            if self.white_is_zero:
                np.subtract(1, channel, out=channel)
            if self.alpha is not None:  # in place: an image can have hundreds of megabytes
                channel -= np.float32(behind / 255)
                channel *= self.alpha
                channel /= np.float32(_OPAQUE)
                channel += np.float32(behind / 255)
            yield channel

    def warnings(self, levels: Levels | None) -> list[str]:
        """What the levels do to the values, as short sentences.

        Args:
            levels: those of the model; None: the range of the values' type.
        """
        used = self.used
        black, white = levels or self.full
        found = []
        if levels is None and self.full.black < 0:
            but = ", although none is negative" if used.black >= 0 else ""
            found.append(f"signed values were scaled over their range, {black:,.0f} to {white:,.0f}{but}")
        if used.black < black or used.white > white:
            outside = sum(int(((values < black) | (values > white)).sum()) for values in self.channels)
            share = 100 * outside / sum(values.size for values in self.channels)
            found.append(f"{_percent(share)} of the values are outside {black:,g} to {white:,g} and were clipped")
        if used.white < black + _DARK * (white - black):
            found.append(self._too_dark(used.white, levels))
        return found

    def _too_dark(self, highest: float, levels: Levels | None) -> str:
        if levels is None and self.bits is not None and self.full.black == 0:
            fitting = next(bits for bits in (*DEPTHS, self.bits) if highest < 2**bits)
            return f"uses only {fitting} of its {self.bits} bits, and may be too dark for the model"
        white = (levels or self.full).white
        return f"the highest value is {highest:,g}, far below {white:,g}, which is white for the model"


def _percent(share: float) -> str:
    """A share from 0 to 100, to two digits."""
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"  # noqa: PLR2004


class Layout(NamedTuple):
    """How the values of an image are stored, from the file's header.

    Attributes:
        bits: per value, of integers.
        is_signed: whether integers can be negative.
        white_is_zero: whether the highest integer is black.
        shift: by how many bits the decoder shifts integers up.
        key: the grey level or colour that is transparent; None: there is none.
    """

    bits: int
    is_signed: bool
    white_is_zero: bool
    shift: int
    key: object

    @classmethod
    def of(cls, image: Image.Image, data: bytes) -> Self:
        """The layout of an image that is not decoded yet.

        Raises:
            UnreadableImage: the header is damaged.
        """
        tags = _tags(image)
        bits = int(max(tags.get(ExifTag.BitsPerSample, (_DEEP_BITS,))))
        shift = 0
        if image.format == "JPEG2000":
            bits = jpeg2000.read_header(data).bits
            shift = max(0, _DEEP_BITS - bits)  # Pillow fills 16 bits
        return cls(
            bits=bits,
            is_signed=_SIGNED in tags.get(ExifTag.SampleFormat, ()),
            white_is_zero=tags.get(ExifTag.PhotometricInterpretation) == _WHITE_IS_ZERO,
            shift=shift,
            key=image.info.get("transparency"),
        )


def correct_order(image: Image.Image) -> None:
    """Corrects the order of bytes of big-endian TIFF files with signed or floating-point values, before decoding.

    libtiff returns native order, but Pillow swaps the bytes again.
    """
    if isinstance(image, PillowFile.ImageFile) and image.format == "TIFF":
        image.tile = [
            tile._replace(args=(native, *tile.args[1:]))
            if isinstance(tile.args, tuple) and (native := _NATIVE.get(_order_of(tile.args)))
            else tile
            for tile in image.tile
        ]


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is not decoded yet has more than 8 bits per channel that can be read."""
    return image.mode.startswith("I") or image.mode == "F" or _has_deep_colour(image)


def is_signed_byte(image: Image.Image) -> bool:
    """Whether the values of a grey image of 8 bits are signed, of which Pillow shows the bytes."""
    return image.mode == "L" and _SIGNED in _tags(image).get(ExifTag.SampleFormat, ())


def lost_values(image: Image.Image) -> list[str]:
    """What reading an image with 8 bits per channel did to its values, as short sentences."""
    if is_signed_byte(image):
        return ["signed values were scaled over their range, -128 to 127"]
    if max(_tags(image).get(ExifTag.BitsPerSample, (_BYTE,))) > _BYTE:
        return ["colour of more than 8 bits was reduced to 8 bits"]
    return []


def low_bytes(image: Image.Image, data: bytes) -> Image.Image | None:
    """The low bytes of a file with 16-bit colour or alpha, of which Pillow decodes the high bytes; else None.

    Args:
        image: the opened file, not decoded yet.
        data: the whole file.
    """
    if not _has_deep_colour(image):
        return None
    low = Image.open(io.BytesIO(data), formats=[str(image.format)])
    assert isinstance(low, PillowFile.ImageFile)  # noqa: S101  all files are
    low.tile = [tile._replace(args=_reversed(tile.args)) for tile in low.tile]
    if _order_of(low.tile[0].args) != _ALL_BYTES:
        low.load()
        return low
    _, low_grey, _, low_alpha = low.split()
    return Image.merge("LA", (low_grey, low_alpha))


def read(image: Image.Image, low: Image.Image | None, layout: Layout) -> DeepImage:
    """The values of an image that is decoded and upright.

    Args:
        image: grey of mode I, I;16 or F, or the high bytes of 16-bit colour.
        low: of 16-bit colour, the low bytes.
        layout: of the file.
    """
    if low is not None:
        return _colour(image, low, layout.key)
    values: Values = np.asarray(image)
    if values.dtype.kind == "f":
        return DeepImage((values,), Levels(0, 1))
    if layout.is_signed:
        full = Levels(-(2 ** (layout.bits - 1)), 2 ** (layout.bits - 1) - 1)
    else:
        full = Levels(0, 2**layout.bits - 1)
        if layout.bits > _DEEP_BITS and values.dtype == np.int32:
            values = values.view(np.uint32)
        if layout.shift and values.dtype == np.uint16:
            values = np.right_shift(values, layout.shift)
    alpha = _alpha_of_key(values == layout.key) if isinstance(layout.key, int) else None
    return DeepImage((values,), full, layout.bits, layout.white_is_zero, alpha)


def _colour(image: Image.Image, low: Image.Image, key: object) -> DeepImage:
    channels = []
    for name in low.getbands():
        values = np.asarray(image.getchannel("R" if name == "L" else name)).astype(np.uint16)
        values <<= _BYTE
        values |= np.asarray(low.getchannel(name))
        channels.append(values)
    alpha = channels.pop() if low.mode in {"LA", "RGBA"} else None
    if isinstance(key, tuple):
        alpha = _alpha_of_key(
            np.logical_and.reduce([values == level for values, level in zip(channels, key, strict=True)])
        )
    return DeepImage(tuple(channels), Levels(0, 2**_DEEP_BITS - 1), _DEEP_BITS, alpha=alpha)


def _alpha_of_key(is_key: NDArray[np.bool_]) -> NDArray[np.uint16]:
    return np.where(is_key, np.uint16(0), _OPAQUE)


def _has_deep_colour(image: Image.Image) -> bool:
    """Whether all parts of an image have an order of bytes that can be reversed."""
    tiles = getattr(image, "tile", ())
    if _tags(image).get(ExifTag.PlanarConfiguration) == _SEPARATE_CHANNELS:  # libtiff ignores the order then
        return False
    return bool(tiles) and all(_DEEP_COLOUR.fullmatch(_order_of(tile.args)) for tile in tiles)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF file; of other files, none."""
    return getattr(image, "tag_v2", {})


def _order_of(arguments: object) -> str:
    """Pillow's name for the order of a file's bytes, from the arguments of its decoder."""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _reversed(arguments: Any) -> Any:
    """The arguments with the bytes of each value swapped."""
    order = _order_of(arguments)
    swapped = _ALL_BYTES if order == _GREY_ALPHA else order[:-1] + _SWAPPED[order[-1]]
    return (swapped, *arguments[1:]) if isinstance(arguments, tuple) else swapped
