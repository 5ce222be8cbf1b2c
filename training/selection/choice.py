"""Chooses the candidate that tells synthetic defects best from normal images that its models have not seen.

No test image takes part, and no image of the calibration part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from app.inference.decisions.regions import Cells
from training.model.folds import folds_of
from training.model.interest import as_tensor
from training.model.method import Method, Progress
from training.model.recipes import DEFAULT, LINEAR, Recipe
from training.model.scoring_rules import DEFAULT_SCORING_RULE, FEATURE_RULE, SCORING_RULES, ScoringRule
from training.selection.defects import with_defects

_MOST_IMAGES: Final = 150  # normal images that the choice is based on: more take longer and change little
_MOST_SMALL_IMAGES: Final = 2_000  # what wins depends on their number, and they take little time

_FOLDS: Final = 2
_SMALL: Final = 64  # pixels: images whose sides are not longer have candidates at their own size
_PIXEL_LIMIT: Final = 128  # pixels: for longer sides, pixel recipes are slow, and blur what matters


@dataclass(frozen=True)
class Candidate:
    """A recipe at one input size.

    Attributes:
        recipe: hyperparameters.
        rule: computes the score.
        size: (height, width) of the input.
    """

    recipe: Recipe
    rule: ScoringRule
    size: tuple[int, int]


@dataclass(frozen=True)
class Trial:
    """A candidate with its AUROC of synthetic defects against normal images."""

    candidate: Candidate
    auroc: float


def is_small(native: tuple[int, int]) -> bool:
    """Whether images of this (height, width) have recipes of their own; a pretrained network gains nothing on them."""
    return max(native) <= _SMALL


def candidates(features: Recipe, native: tuple[int, int], size: tuple[int, int] | None) -> list[Candidate]:
    """What is tried.

    Args:
        features: the recipe over a pretrained network.
        native: (height, width) of a typical image.
        size: the input size that the user asked for; None: part of the choice.
    """
    rule = SCORING_RULES[DEFAULT_SCORING_RULE]
    if is_small(native):
        return [Candidate(recipe, rule, size or native) for recipe in (DEFAULT, LINEAR)]
    found = [Candidate(features, FEATURE_RULE, size or features.folder_size)]
    pixel_size = size or LINEAR.folder_size
    return [*found, Candidate(LINEAR, rule, pixel_size)] if max(pixel_size) <= _PIXEL_LIMIT else found


def sample(count: int, native: tuple[int, int], seed: int) -> list[int]:
    """Positions of the images that a choice is based on, ascending, out of ``count``."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(order[: _MOST_SMALL_IMAGES if is_small(native) else _MOST_IMAGES])


def try_all(
    images: torch.Tensor,
    groups: Sequence[str],
    tried: Sequence[Candidate],
    method_of: Callable[[Candidate], Method[Any]],
    *,
    local: bool,
    seed: int,
    inside: Cells | None = None,
) -> list[Trial]:
    """Tries candidates; the best comes first, and of equals the earlier one.

    Args:
        images: (N, C, H, W) float32 in [0, 1], normal images.
        groups: N names; images of one group show one object.
        tried: the candidates.
        method_of: the method of a candidate.
        local: the kind of the defects, see :func:`with_defects`.
        seed: of the defects and the folds.
        inside: (H, W), the region of interest, outside of which the images are black.
    """
    defective, folds = with_defects(images, seed, local=local), folds_of(groups, _FOLDS, seed)
    if inside is not None:
        defective = defective * as_tensor(inside)
    is_defective = [False] * len(images) + [True] * len(images)
    trials = []
    for candidate in tried:
        method, every = method_of(candidate), range(len(images))
        normal, twins = (
            method.represent(at_size(each, candidate.size), every, Progress()) for each in (images, defective)
        )
        scores = torch.cat(method.held_out_scores(normal, twins, folds))
        trials.append(Trial(candidate, float(roc_auc_score(is_defective, scores.numpy()))))
    return sorted(trials, key=lambda trial: -trial.auroc)


def at_size(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, C, H, W) → (N, C, *size), antialiased."""
    if tuple(images.shape[2:]) == size:
        return images
    return nn.functional.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)
