"""Splits the normal images into fit, validation and calibration parts, by a seeded shuffle of whole groups."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from app.inference.decisions.conformal import Guarantee, required_calibration_size
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

    The calibration part has the recipe's share of the images, or more if α needs more. At least a quarter of the images
    are left for the fit part.

    Args:
        groups: one name per image.
        recipe: the shares of the parts.
        false_alarm_rate: α that the calibration part must support.
        guarantee: the kind of guarantee for α.
        seed: of the shuffle.

    Raises:
        TrainingError: there are too few images or groups for α; the text says how many are needed.
    """
    count = len(groups)
    required = required_calibration_size(false_alarm_rate, guarantee)
    if required > count * (1 - _MIN_FIT_SHARE):
        raise TrainingError(
            f"a {guarantee} false-alarm rate of {false_alarm_rate:g} needs at least {required} calibration images, so "
            f"{math.ceil(required / (1 - _MIN_FIT_SHARE))} normal images in total, but there are {count}. "
            "Add images or choose a higher --false-alarm-rate"
        )
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    left = sorted(members)
    random.Random(seed).shuffle(left)  # noqa: S311  not a secret

    def take(target: int) -> tuple[int, ...]:
        """At least ``target`` images: first the next groups that do not exceed it, then the smallest groups."""
        taken: list[int] = []
        for group in left.copy():
            if len(taken) + len(members[group]) <= target:
                taken += members[group]
                left.remove(group)
        while len(taken) < target and left:
            smallest = min(left, key=lambda group: len(members[group]))
            taken += members[smallest]
            left.remove(smallest)
        return tuple(sorted(taken))

    calibration = take(max(math.ceil(recipe.calibration_share * count), required))
    spare = count - len(calibration) - math.ceil(_MIN_FIT_SHARE * count)
    validation = take(min(math.floor(recipe.validation_share * count), spare))
    fit = tuple(sorted(index for group in left for index in members[group]))
    if len(fit) < count * _MIN_FIT_SHARE:
        raise TrainingError(
            f"{count} images in {len(members)} groups cannot be split: calibration takes whole groups, so only "
            f"{len(fit)} images are left for training. Add groups or choose a higher --false-alarm-rate"
        )
    return Partition(fit, validation, calibration)
