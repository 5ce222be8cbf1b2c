"""The settings of a training run, what it reports while it works, and its result."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from app.inference.bundles.manifest import Manifest
from app.inference.bundles.signing import SigningKey
from app.inference.decisions.conformal import Guarantee
from training.data.datasets import Dataset, Source
from training.data.splitting import CalibrationPlan, Partition
from training.model.fitting import Epoch
from training.model.recipes import Recipe
from training.model.scoring_rules import ScoringRule
from training.selection.choice import Trial
from training.suspects import Suspect

READING: Final = "reading the images"
CHOOSING: Final = "choosing a recipe"
FITTING: Final = "fitting"
CALIBRATING: Final = "calibrating and evaluating"
DRAWING: Final = "drawing the report"
PUBLISHING: Final = "publishing"


@dataclass(frozen=True)
class Run:
    """All settings of a run. On one machine, equal runs give equal weights and thresholds.

    With ``choose``, other recipes are tried as well as ``recipe``, and the run goes on with the best. With ``force``,
    images that are not suitable are only warned about. Without ``activate``, the version is stored, and the one before
    stays current.
    """

    source: Source
    name: str
    recipe: Recipe
    rule: ScoringRule
    store: Path
    false_alarm_rate: float
    guarantee: Guarantee
    seed: int
    device: str
    threads: int
    calibration: CalibrationPlan = "split"
    choose: bool = False
    weights: Path | None = None
    sign_key: SigningKey | None = None
    force: bool = False
    activate: bool = True


@dataclass(frozen=True)
class Prepared:
    """The data of a run and how they are divided, before fitting.

    Attributes:
        data: all images.
        parts: of the normal images.
        device: where the network will be fitted.
        near_duplicates: pairs of files that look alike and should be independent, by where they are; None for built-in
            sets.
        warnings: why the model should not be trusted, if the user forces the run; else none.
    """

    data: Dataset
    parts: Partition
    device: torch.device
    near_duplicates: dict[str, list[tuple[str, str]]] | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """A new version: its folder and its manifest."""

    directory: Path
    manifest: Manifest


class Observer:
    """Callbacks that follow a run. These do nothing; subclasses override what they need."""

    def stage(self, name: str, steps: int | None = None) -> None:
        """A stage of the run begins; it will count this many images, if the number is known."""

    def read(self, data: Dataset) -> None:
        """The images were read. Called before the check whether there are enough of them."""

    def chosen(self, trials: Sequence[Trial]) -> None:
        """Recipes were tried; the best comes first."""

    def prepared(self, run: Run, prepared: Prepared) -> None:
        """The recipe is known, and the images are divided."""

    def step(self, images: int) -> None:
        """This many images were worked through."""

    def epoch(self, epoch: Epoch) -> None:
        """A pass over all images ended."""

    def suspects(self, suspects: Sequence[Suspect]) -> None:
        """The normal images with the highest scores are known."""
