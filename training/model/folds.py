"""Folds: parts of the fit images that models are not fitted on, and score."""

from collections.abc import Sequence

import torch

from training.errors import TrainingError

Fold = list[int]
"""Positions of images that are held out together."""


def folds_of(groups: Sequence[str], count: int, seed: int) -> list[Fold]:
    """At least two and at most ``count`` folds of similar size, from a seeded shuffle of whole groups.

    Args:
        groups: one name per image; if all are the same, every image counts as its own group.
        count: number of folds.
        seed: of the shuffle.

    Raises:
        TrainingError: there is only one image.
    """
    if len(groups) < 2:  # noqa: PLR2004  folds
        raise TrainingError("one image is left to fit on, and two are needed: add images")
    if len(set(groups)) == 1:
        groups = [str(position) for position in range(len(groups))]
    members: dict[str, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    names = sorted(members)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    shuffled = sorted((names[at] for at in order), key=lambda name: -len(members[name]))  # the largest groups first
    folds: list[Fold] = [[] for _ in range(min(count, len(names)))]
    for name in shuffled:
        min(folds, key=len).extend(members[name])
    return [sorted(fold) for fold in folds]


def others(fold: Fold, count: int) -> list[int]:
    """The positions below ``count`` that are not in a fold."""
    held_out = set(fold)
    return [position for position in range(count) if position not in held_out]
