"""Recipes: named sets of hyperparameters. The manifest of a version contains all of them."""

from dataclasses import dataclass, replace
from typing import Final, Literal


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a training run. Shares are of the normal images; the rest is the fit part."""

    name: str
    network: Literal["dense", "conv", "linear", "features"]
    """dense: fully connected, for small images; conv: convolutional, for larger images and colour images; linear:
    solved in closed form (optimizer settings are ignored); features: rebuilds the features of a pretrained network, in
    closed form too, for surfaces and parts."""
    hidden: tuple[int, ...]
    """Layer widths (dense) or channels (conv) from the input on; the decoder mirrors them."""
    kept_share: float
    """Share of the hidden units that a dense network keeps when it is pruned, before the last quarter of the epochs. 1:
    no pruning. With fewer than three epochs, the network is not pruned."""
    code: int
    """Width of the bottleneck: the number of values that an image is compressed to."""
    linear_code: bool
    """No ReLU after the code layer, which would set about half of the code to zero."""
    jitter: float
    """Strength of the data augmentation; 1: rotation up to 8°, stretch up to 8 %, shear up to 0.12, shift up to 1/28 of
    the image's side."""
    copies: int
    """Number of copies of fit images, turned by up to 3° and a tenth brighter or darker, that a fit in closed form uses
    as well."""
    noise: float
    """Standard deviation of the noise added to the input; the target is the image without noise."""
    noise_varies: bool
    """Whether each image has its own noise level between 0 and ``noise``, so that clean input is learned as well."""
    noise_cell: int
    """Side in pixels of a cell of the noise grid, before bilinear upsampling: blobs instead of grain."""
    epochs: int
    batch_size: int
    optimizer: Literal["adam", "adamw"]
    learning_rate: float
    weight_decay: float
    schedule: Literal["constant", "warmup-cosine"]
    validation_share: float
    """Of the groups of normal images. Only for the loss curve: there is no early stopping, and no epoch is selected."""
    calibration_share: float
    """Of the groups of normal images. Only for the threshold."""
    backbone: str
    """Name of the pretrained network; empty unless ``network`` is features."""
    folder_size: tuple[int, int]
    """(height, width) of the model's input for image folders, if the user gives no size."""

    def __post_init__(self) -> None:
        if min(*self.hidden, self.code, 1) < 1 or (not self.hidden and self.network in {"dense", "conv"}):
            raise ValueError(f"hidden and code must be positive widths, not {self.hidden} and {self.code}")
        if not 0 < self.kept_share <= 1 or (self.kept_share < 1 and self.network != "dense"):
            raise ValueError(f"kept_share must be in (0, 1], and 1 unless the network is dense, not {self.kept_share}")
        if bool(self.backbone) is not (self.network == "features"):
            raise ValueError(f"a backbone belongs to the network features, not {self.network}")
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be positive, not {self.epochs} and {self.batch_size}")
        if self.copies and self.network != "features":
            raise ValueError(f"copies are for the network features, not {self.network}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")
        if not 0 < self.calibration_share < 1:
            raise ValueError(f"calibration_share must be between 0 and 1, not {self.calibration_share}")
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
    copies=0,
    noise=0,
    noise_varies=False,
    noise_cell=1,
    epochs=10,
    batch_size=64,
    optimizer="adam",
    learning_rate=1e-3,
    weight_decay=0,
    schedule="constant",
    # The tutorial fits on 80 %. Half of the remaining fifth is for validation, half for the threshold.
    validation_share=0.1,
    calibration_share=0.1,
    backbone="",
    folder_size=(28, 28),
)

# Denoising makes the network learn what normal images look like instead of copying its input. docs/scoring.md shows the
# effect of each hyperparameter.
DEFAULT: Final = Recipe(
    name="default",
    network="dense",
    hidden=(512,),
    kept_share=0.5,
    code=32,
    linear_code=True,
    jitter=0.5,
    copies=0,
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
    backbone="",
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

FEATURES: Final = replace(
    LINEAR, name="features", network="features", code=64, copies=200, validation_share=0,
    backbone="efficientnet_lite0", folder_size=(320, 320),
)  # fmt: skip

RECIPES: Final = {recipe.name: recipe for recipe in (DEFAULT, TUTORIAL, CONV, LINEAR, FEATURES)}
