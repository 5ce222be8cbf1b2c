"""Model input: its shape, decoded images, and batches of them."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

SIDES: Final = (4, 2048)
"""Minimum and maximum of the height and width of a model's input, in pixels."""

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""(C, H, W): 8-bit levels from 0 to 255, or float32 in [0, 1]."""

Reduction: TypeAlias = Literal["bilinear", "area"]
"""How a larger image is brought to the input's size; see :class:`InputSpec`."""

Fit: TypeAlias = Literal["stretch", "pad", "crop"]
"""How an image of other proportions is brought to the input's size; see :class:`InputSpec`."""

_WHITE: Final = np.float32(255)


class InputSpec(BaseModel):
    """The input of a model: (channels, height, width), float32 in [0, 1].

    For grey models, colour images are converted to ITU-R 601 luma. Images of another size are resampled to exactly
    height × width: ``reduction`` says how larger ones are, and ``fit`` how images of other proportions are.
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
    """

    pixels: Pixels
    warnings: tuple[str, ...] = ()

    @property
    def tensor(self) -> torch.Tensor:
        """(C, H, W) float32 in [0, 1]."""
        return stack([self])[0]


def stack(images: Sequence[DecodedImage]) -> torch.Tensor:
    """Stacks images.

    Args:
        images: at least one, all of the same size and colour mode.

    Returns:
        (N, C, H, W) float32 in [0, 1], contiguous.
    """
    arrays: list[Pixels] = [image.pixels for image in images]
    if any(array.dtype != np.uint8 for array in arrays):
        arrays = [unit_values(array) for array in arrays]
    # Scaled in one call: image by image, this would take as long as decoding.
    batch: Pixels = np.concatenate(arrays).reshape(len(arrays), *arrays[0].shape)  # type: ignore[assignment]
    return torch.from_numpy(np.ascontiguousarray(unit_values(batch)))


def unit_values(pixels: Pixels) -> NDArray[np.float32]:
    """8-bit levels divided by 255, as float32 of the same shape; float32 is returned unchanged."""
    return pixels if pixels.dtype == np.float32 else np.divide(pixels, _WHITE, dtype=np.float32)  # type: ignore[return-value]
