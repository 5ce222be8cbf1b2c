"""The honest split: whole groups go to fit, validation or calibration, by a seeded shuffle."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from app.inference.decisions.conformal import Guarantee, required_calibration_size
from training.errors import TrainingError
from training.model.recipes import Recipe

_LEAST_TO_FIT = 0.25


@dataclass(frozen=True)
class Partition:
    """Disjoint, ascending indices into the normal images; together all of them."""

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
    """Splits normal images; those with equal group names stay together.

    The calibration part takes its share, or more where α needs more and a quarter still is left to fit on.

    Args:
        groups: one name per image; a name of its own for an image that stands alone.
        recipe: gives the shares.
        false_alarm_rate: α that the calibration part must support.
        guarantee: what α promises.
        seed: of the shuffle.

    Raises:
        TrainingError: there are too few images or groups for α; the text says how many it takes.
    """
    count = len(groups)
    required = required_calibration_size(false_alarm_rate, guarantee)
    if required > count * (1 - _LEAST_TO_FIT):
        raise TrainingError(
            f"a {guarantee} false alarm rate of {false_alarm_rate:g} needs at least {required} calibration images, so "
            f"{math.ceil(required / (1 - _LEAST_TO_FIT))} normal images in all; there are {count}. "
            "Add images or ask for a coarser --false-alarm-rate"
        )
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    left = sorted(members)
    random.Random(seed).shuffle(left)  # noqa: S311  a reproducible shuffle is the point

    def take(target: int) -> tuple[int, ...]:
        """At least so many images: the next groups that fit in, then the smallest to fill up."""
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
    spare = count - len(calibration) - math.ceil(_LEAST_TO_FIT * count)  # watching must not cost the fit its least
    validation = take(min(math.floor(recipe.validation_share * count), spare))
    fit = tuple(sorted(index for group in left for index in members[group]))
    if len(fit) < count * _LEAST_TO_FIT:
        raise TrainingError(
            f"{count} images in {len(members)} groups cannot be split: whole groups for calibration leave only "
            f"{len(fit)} images to learn from. Add groups or ask for a coarser --false-alarm-rate"
        )
    return Partition(fit, validation, calibration)
