"""Recipes: every knob of a training run, with its unit and its reason, in one frozen record.

The record travels whole into the manifest.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal


@dataclass(frozen=True)
class Recipe:
    """How to train. Shares are of the normal images; what they leave is fitted on."""

    name: str
    network: Literal["dense", "conv", "linear"]
    """dense: every pixel with every other, for small images; conv: for larger and coloured ones; linear: solved in
    closed form, so that the knobs of the loop rest, for surfaces."""
    hidden: tuple[int, ...]
    """Layer widths (dense) or channels (conv) from the input's side on; the decoder mirrors them."""
    kept_share: float
    """Of the hidden units of a dense network, what is left for the last quarter of the epochs; 1: all. Nothing is taken
    where there are fewer than three epochs."""
    code: int
    """Width of the bottleneck: how many numbers an image is compressed to."""
    linear_code: bool
    """No ReLU on the code: half of a rectified code is dead weight."""
    jitter: float
    """How far images are turned, stretched, sheared and moved while fitting; 1: up to 8°, 8 %, 12 % and a 28th."""
    noise: float
    """Standard deviation of the corruption added to the input, while the clean image stays the target."""
    noise_varies: bool
    """Each image draws its own level up to ``noise``: clean and faintly corrupted input must be rebuilt too."""
    noise_cell: int
    """Pixels per side that share one noise draw before bilinear enlargement: blobs, not grain."""
    epochs: int
    batch_size: int
    optimizer: Literal["adam", "adamw"]
    learning_rate: float
    weight_decay: float
    schedule: Literal["constant", "warmup-cosine"]
    validation_share: float
    """Watched for the loss curve, decides nothing: no recipe stops early or picks an epoch."""
    calibration_share: float
    """Kept back for the threshold alone."""
    folder_size: tuple[int, int]
    """(height, width) that image folders are brought to where the user names none."""

    def __post_init__(self) -> None:
        if min(*self.hidden, self.code, 1) < 1 or (not self.hidden and self.network != "linear"):
            raise ValueError(f"hidden and code need positive widths, not {self.hidden} and {self.code}")
        if not 0 < self.kept_share <= 1 or (self.kept_share < 1 and self.network != "dense"):
            raise ValueError(f"kept_share must lie above 0, up to 1, and be 1 unless dense, not {self.kept_share}")
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be positive, not {self.epochs} and {self.batch_size}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")
        if not 0 < self.calibration_share < 1:
            raise ValueError(f"calibration_share must lie between 0 and 1, not {self.calibration_share}")
        if self.validation_share < 0 or self.validation_share + self.calibration_share >= 1:
            raise ValueError(
                f"validation_share {self.validation_share} and calibration_share {self.calibration_share} "
                "must leave images to fit on"
            )


TUTORIAL: Final = Recipe(
    name="tutorial",
    network="dense",
    hidden=(512, 256),
    kept_share=1,
    code=128,
    linear_code=False,
    jitter=0,
    noise=0,
    noise_varies=False,
    noise_cell=1,
    epochs=10,
    batch_size=64,
    optimizer="adam",
    learning_rate=1e-3,
    weight_decay=0,
    schedule="constant",
    # The tutorial's 80/20: the held-out fifth serves half as its validation set, half for the threshold.
    validation_share=0.1,
    calibration_share=0.1,
    folder_size=(28, 28),
)

# Rebuilding clean images from blob-wise corrupted ones teaches what normal looks like rather than how to copy.
# docs/scoring.md argues each knob with a row of a table.
DEFAULT: Final = Recipe(
    name="default",
    network="dense",
    hidden=(512,),
    kept_share=0.5,
    code=32,
    linear_code=True,
    jitter=0.5,
    noise=0.7,
    noise_varies=True,
    noise_cell=4,
    epochs=60,
    batch_size=128,
    optimizer="adamw",
    learning_rate=4e-3,
    weight_decay=1.0,
    schedule="warmup-cosine",
    validation_share=0.05,
    calibration_share=0.2,
    folder_size=(64, 64),
)

CONV: Final = replace(
    DEFAULT,
    name="conv",
    network="conv",
    hidden=(32, 64, 64),
    kept_share=1,
    code=64,
    noise=0.5,
    noise_cell=8,
    epochs=40,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=1e-2,
    folder_size=(64, 64),
)

LINEAR: Final = replace(
    DEFAULT, name="linear", network="linear", hidden=(), kept_share=1, code=512, jitter=0, noise=0, epochs=1
)

RECIPES: Final = {recipe.name: recipe for recipe in (DEFAULT, TUTORIAL, CONV, LINEAR)}
