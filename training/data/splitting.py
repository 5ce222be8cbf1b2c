"""Splits the normal images into fit, validation and calibration parts, by a seeded shuffle of whole groups."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from app.inference.decisions.conformal import Guarantee, finest_rate_text, required_calibration_size
from training.errors import TrainingError
from training.model.recipes import Recipe

_MIN_FIT_SHARE = 0.25


@dataclass(frozen=True)
class Partition:
    """Indices of the normal images in each part: ascending, disjoint, together all of them."""

    fit: tuple[int, ...]
    validation: tuple[int, ...]
    calibration: tuple[int, ...]


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
        raise TrainingError(_too_few(len(groups), len(names), most, false_alarm_rate, guarantee))
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


def _too_few(images: int, groups: int, most: int, false_alarm_rate: float, guarantee: Guarantee) -> str:
    """Why ``most`` calibration groups are too few, and what would help, on one line."""
    required = required_calibration_size(false_alarm_rate, guarantee)
    total = math.ceil(required / (1 - _MIN_FIT_SHARE))
    lowest = f"The lowest rate for so few is {finest_rate_text(most, guarantee)}. " if most else ""
    if groups == images:
        return (
            f"a {guarantee} false-alarm rate of {false_alarm_rate:g} needs at least {required} calibration images, so "
            f"{total} normal images in total, but there are {images}. {lowest}"
            "Add images or choose a higher --false-alarm-rate"
        )
    return (
        f"a {guarantee} false-alarm rate of {false_alarm_rate:g} needs at least {required} groups of calibration "
        f"images, so {total} groups of normal images in total, but the {images} images are in {groups} groups. {lowest}"
        "Add groups, choose a higher --false-alarm-rate, or treat every image as its own object with --groups none"
    )
