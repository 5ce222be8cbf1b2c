"""Model input: its shape, decoded images, and batches of them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

if TYPE_CHECKING:
    import torch

SIDES: Final = (4, 2048)
"""Minimum and maximum of the height and width of a model's input, in pixels."""

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""(C, H, W): 8-bit levels from 0 to 255, or float32 in [0, 1]."""

Reduction: TypeAlias = Literal["bilinear", "area"]
"""How a larger image is brought to the input's size; see :class:`InputSpec`."""

JpegDecoding: TypeAlias = Literal["full", "scaled"]
"""How a larger JPEG image is decoded; see :class:`InputSpec`."""

Fit: TypeAlias = Literal["stretch", "pad", "crop"]
"""How an image of other proportions is brought to the input's size; see :class:`InputSpec`."""

_WHITE: Final = np.float32(255)
_COLOUR_PATTERN: Final = re.compile(r"[a-z]+|#[0-9a-f]{6}")


class Levels(NamedTuple):
    """Two values in the units of image files: what becomes 0, and what becomes 1."""

    black: float
    white: float


def known_colour(text: str) -> str:
    """The name of a colour, or #rrggbb, in lower case.

    Raises:
        ValueError: it is neither.
    """
    lower = text.lower()
    try:
        if _COLOUR_PATTERN.fullmatch(lower):
            ImageColor.getrgb(lower)
            return lower
    except ValueError:
        pass
    raise ValueError(f"{text!r} is neither the name of a colour nor of the form #rrggbb")


Colour = Annotated[str, AfterValidator(known_colour)]
"""A colour name of CSS, or #rrggbb, in lower case."""


class InputSpec(BaseModel):
    """The input of a model: (channels, height, width), float32 in [0, 1].

    For grey models, colour images are converted to ITU-R 601 luma. Images of 8 bits are divided by 255; those of more
    bits are scaled from ``black`` and ``white`` to 0 and 1, and clipped. Images of another size are resampled to
    height × width: ``reduction`` and ``jpeg`` say how larger ones are, and ``fit`` how images of other proportions are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["L", "RGB"] = Field(description="L: one grey channel; RGB: three colour channels")
    height: int = Field(ge=SIDES[0], le=SIDES[1])
    width: int = Field(ge=SIDES[0], le=SIDES[1])
    fit: Fit = Field(
        "stretch",
        description="how an image of other proportions is brought to height × width. stretch: its proportions change; "
        "pad: the whole image, in the middle, surrounded by its own reflection; crop: its middle, without the rest",
    )

    reduction: Reduction = Field(
        "bilinear",
        description="how a larger image is resampled. area: by the mean over whole factors, then with an antialiased "
        "bicubic filter; bilinear: with an antialiased bilinear filter, which blurs (models of older versions)",
    )
    jpeg: JpegDecoding = Field(
        "full",
        description="how a JPEG image is decoded before it is resampled. scaled: at a half, quarter or eighth of its "
        "size, if that is not smaller than the input, several times as fast; full: always at its own size (models of "
        "older versions)",
    )
    black: FiniteFloat | None = Field(
        None,
        description="for images of more than 8 bits: the value, in the units of the file, that becomes 0; None: the "
        "lowest of its type",
    )
    white: FiniteFloat | None = Field(
        None,
        description="for images of more than 8 bits: the value, in the units of the file, that becomes 1; None: the "
        "highest of its type, or 1 for floating point",
    )
    background: Colour = Field("black", description="the colour behind transparent images: a name or #rrggbb")

    @model_validator(mode="after")
    def _levels_are_two(self) -> Self:
        if (self.black is None) is not (self.white is None):
            raise ValueError("black and white must be given together")
        if self.black is not None and self.white is not None and not self.black < self.white:
            raise ValueError("black must be less than white")
        return self

    @property
    def levels(self) -> Levels | None:
        """The values that become 0 and 1 in images of more than 8 bits; None: the range of their type."""
        return None if self.black is None or self.white is None else Levels(self.black, self.white)

    @property
    def unused(self) -> set[str]:
        """The fields that have no effect, which older programs do not know."""
        optional = {"fit", "reduction", "jpeg", "black", "white", "background"}
        return {name for name in optional if getattr(self, name) == type(self).model_fields[name].default}

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.mode == "L" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)


class DecodedImage(NamedTuple):
    """An image at a model's input size and in its colour mode.

    Attributes:
        pixels: (C, H, W), 8-bit levels or float32 in [0, 1].
        warnings: short sentences about changes that decoding made to the image.
        size: width and height of the image file in pixels, as a viewer shows it; None: the size of the model's input.
    """

    pixels: Pixels
    warnings: tuple[str, ...] = ()
    size: tuple[int, int] | None = None

    @property
    def tensor(self) -> "torch.Tensor":
        """(C, H, W) float32 in [0, 1]."""
        return stack([self])[0]


def stack(images: Sequence[DecodedImage]) -> "torch.Tensor":
    """Stacks images.

    Args:
        images: at least one, all of the same size and colour mode.

    Returns:
        (N, C, H, W) float32 in [0, 1], contiguous.
    """
    import torch  # noqa: PLC0415  200 MB, which the processes that decode images do without

    arrays: list[Pixels] = [image.pixels for image in images]
    if any(array.dtype != np.uint8 for array in arrays):
        arrays = [unit_values(array) for array in arrays]
    # Scaled in one call: image by image, this would take as long as decoding.
    batch: Pixels = np.concatenate(arrays).reshape(len(arrays), *arrays[0].shape)  # type: ignore[assignment]
    return torch.from_numpy(np.ascontiguousarray(unit_values(batch)))


def unit_values(pixels: Pixels) -> NDArray[np.float32]:
    """8-bit levels divided by 255, as float32 of the same shape; float32 is returned unchanged."""
    return pixels if pixels.dtype == np.float32 else np.divide(pixels, _WHITE, dtype=np.float32)  # type: ignore[return-value]
