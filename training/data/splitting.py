"""Divides the normal images by a seeded shuffle of whole groups: into parts (split) or into folds (cross)."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.inference.decisions.conformal import Guarantee, finest_rate_text, required_calibration_size
from training.errors import TrainingError
from training.model.folds import folds_of
from training.model.recipes import Recipe

CalibrationPlan = Literal["split", "cross", "auto"]
"""split: images held back; cross: all images, each scored by a model fitted without its fold; auto: by their number."""

CROSS_BELOW: Final = 500
"""Groups of normal images below which auto is cross."""

_FOLDS: Final = 5
_MIN_FIT_SHARE = 0.25


@dataclass(frozen=True)
class Partition:
    """Indices of the normal images in each part: ascending, disjoint, together all of them.

    Attributes:
        fit: the weights are fitted on these.
        validation: only their loss is computed.
        calibration: only for the threshold.
        folds: for cross-calibration: the fit part, divided; the other parts are empty then.
    """

    fit: tuple[int, ...]
    validation: tuple[int, ...]
    calibration: tuple[int, ...]
    folds: tuple[tuple[int, ...], ...] = ()

    @property
    def calibrating(self) -> tuple[int, ...]:
        """The images whose scores set the threshold."""
        return self.fit if self.folds else self.calibration


def partition(
    groups: Sequence[str],
    recipe: Recipe,
    *,
    plan: CalibrationPlan,
    false_alarm_rate: float,
    guarantee: Guarantee = "marginal",
    seed: int,
) -> Partition:
    """Divides normal images as a plan says; the other arguments are those of :func:`split`.

    Raises:
        TrainingError: there are too few images or groups for α, or the plan does not permit the guarantee.
    """
    if plan == "cross" and guarantee == "strict":
        raise TrainingError("a strict guarantee needs images held back: choose --calibration split")
    small = len(set(groups)) < CROSS_BELOW and guarantee == "marginal"
    if plan == "cross" or (plan == "auto" and small):
        return cross(groups, false_alarm_rate=false_alarm_rate, seed=seed)
    return split(groups, recipe, false_alarm_rate=false_alarm_rate, guarantee=guarantee, seed=seed)


def cross(groups: Sequence[str], *, false_alarm_rate: float, seed: int) -> Partition:
    """Divides normal images into folds; images with the same group name stay together.

    Args:
        groups: one name per image.
        false_alarm_rate: α that the images must support.
        seed: of the shuffle.

    Raises:
        TrainingError: there are too few images or groups for α; the text says how many are needed.
    """
    count = len(set(groups))
    if count < max(required_calibration_size(false_alarm_rate), 2):
        raise TrainingError(_too_few(len(groups), count, count, false_alarm_rate, "marginal", fit_share=0))
    folds = folds_of(groups, _FOLDS, seed)
    return Partition(tuple(range(len(groups))), (), (), tuple(tuple(fold) for fold in folds))


def split(
    groups: Sequence[str],
    recipe: Recipe,
    *,
    false_alarm_rate: float,
    guarantee: Guarantee = "marginal",
    seed: int,
) -> Partition:
    """Splits normal images; images with the same group name stay together.

    The calibration part has the recipe's share of the groups, or more if α needs more. How many groups a part gets does
    not depend on their images: the calibration groups are then a random sample of all groups, which the guarantee for
    further groups needs. At least a quarter of the groups and of the images are left for the fit part.

    Args:
        groups: one name per image.
        recipe: the shares of the parts.
        false_alarm_rate: α that the calibration part must support.
        guarantee: the kind of guarantee for α.
        seed: of the shuffle.

    Raises:
        TrainingError: there are too few images or groups for α; the text says how many are needed.
    """
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)  # noqa: S311  not a secret
    most = math.floor(len(names) * (1 - _MIN_FIT_SHARE))
    required = required_calibration_size(false_alarm_rate, guarantee)
    if required > most:
        raise TrainingError(_too_few(len(groups), len(names), most, false_alarm_rate, guarantee, _MIN_FIT_SHARE))
    calibration = max(math.ceil(recipe.calibration_share * len(names)), required)
    validation = max(min(math.floor(recipe.validation_share * len(names)), most - calibration), 0)
    place = {name: place for place, name in enumerate(names)}

    def part(first: int, end: int) -> tuple[int, ...]:
        return tuple(index for index, group in enumerate(groups) if first <= place[group] < end)

    parts = Partition(
        fit=part(calibration + validation, len(names)),
        validation=part(calibration, calibration + validation),
        calibration=part(0, calibration),
    )
    if len(parts.fit) < len(groups) * _MIN_FIT_SHARE:
        raise TrainingError(
            f"{len(groups)} images in {len(names)} groups cannot be split: calibration takes whole groups, so only "
            f"{len(parts.fit)} images are left for training. Add groups, choose a higher --false-alarm-rate or another "
            f"--seed, or treat every image as its own object with --groups none"
        )
    return parts


def _too_few(
    images: int, groups: int, most: int, false_alarm_rate: float, guarantee: Guarantee, fit_share: float
) -> str:
    """Why ``most`` calibration groups are too few, and what would help, on one line."""
    required = required_calibration_size(false_alarm_rate, guarantee)
    total = math.ceil(required / (1 - fit_share))
    lowest = f"The lowest rate for so few is {finest_rate_text(most, guarantee)}. " if most else ""
    of_images, of_groups = f"{total} normal images", f"{total} groups of normal images"
    if fit_share:
        of_images = f"{required} calibration images, so {of_images} in total"
        of_groups = f"{required} groups of calibration images, so {of_groups} in total"
    if groups == images:
        return (
            f"a {guarantee} false-alarm rate of {false_alarm_rate:g} needs at least {of_images}, but there are "
            f"{images}. {lowest}Add images or choose a higher --false-alarm-rate"
        )
    return (
        f"a {guarantee} false-alarm rate of {false_alarm_rate:g} needs at least {of_groups}, but the {images} images "
        f"are in {groups} groups. {lowest}Add groups, choose a higher --false-alarm-rate, or treat every image as its "
        "own object with --groups none"
    )
