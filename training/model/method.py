"""A method: how a recipe turns normal images into a model.

Calibration and the choice of a recipe work with any method. A method first represents images, which may be costly
(one pass of a pretrained network); models are then fitted on some of the represented images and score others.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, Self, TypeVar

import torch
from torch import nn

from app.inference.bundles.manifest import BackboneRecord
from training.errors import TrainingError
from training.model.fitting import Epoch

Fold = list[int]
"""Positions of images that are held out together."""


class ImageSet(Protocol):
    """N images, for example a tensor (N, C, H, W)."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, positions: list[int], /) -> torch.Tensor:
        """Some of the images: (K, C, H, W) float32 in [0, 1]."""


class Represented(Protocol):
    """N images in the form that a method needs."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, positions: list[int], /) -> Self:
        """Some of the images."""


R = TypeVar("R", bound=Represented)


@dataclass(frozen=True)
class Progress:
    """Callbacks during a fit.

    Attributes:
        on_step: called with the number of images that were worked through.
        on_epoch: called after each pass over the fit part, for methods that have passes.
    """

    on_step: Callable[[int], None] = lambda _: None
    on_epoch: Callable[[Epoch], None] = lambda _: None


@dataclass(frozen=True)
class Fitted(Generic[R]):
    """A fitted model.

    Attributes:
        network: the content of ``model.pt``, see :class:`app.inference.bundles.torchscript.ScoringModel`.
        scores: represented images → (N,) scores.
        epochs: passes over the fit part; empty for methods that are solved in closed form.
    """

    network: nn.Module
    scores: Callable[[R], torch.Tensor]
    epochs: Sequence[Epoch] = ()


class Method(ABC, Generic[R]):
    """Represents images, fits models, and scores images that a model has not seen.

    Attributes:
        score: whether the score is the maximum of the error map, or a scoring rule computes it.
        backbone: the pretrained network, if there is one.
        copies: number of slightly changed copies of images that a fit uses, at most.
    """

    score: Literal["maximum", "rule"]
    backbone: BackboneRecord | None = None
    copies: int = 0

    @abstractmethod
    def steps(self, images: int, folds: int) -> int:
        """What ``on_step`` will count in total, for a progress bar.

        Args:
            images: number of images to represent and fit on.
            folds: number of folds; 0: no cross-fitting.
        """

    @abstractmethod
    def represent(self, images: ImageSet, positions: Sequence[int], progress: Progress, *, copies: int = 0) -> R:
        """The representation of the images at some positions.

        Args:
            images: any images.
            positions: of those to represent.
            progress: callbacks.
            copies: number of slightly changed copies to represent as well, at most one per image, by methods whose fits
                use them.
        """

    @abstractmethod
    def fit(self, images: R, groups: Sequence[str], validation: R, progress: Progress) -> Fitted[R]:
        """A model of normal images.

        Args:
            images: N images.
            groups: N names; images of one group show one object.
            validation: only their loss is computed, by methods that have one; may be empty.
            progress: callbacks.
        """

    @abstractmethod
    def cross_fit(self, images: R, folds: Sequence[Fold], progress: Progress) -> tuple[Fitted[R], torch.Tensor]:
        """A model fitted on all images, and (N,) scores by models that were fitted without the image's fold."""

    @abstractmethod
    def held_out_scores(self, images: R, twins: R, folds: Sequence[Fold]) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of images by models that were fitted without their fold, and of a twin of each by the same models.

        Args:
            images: N normal images.
            twins: N images; each is scored by the model that scores the image at its position.
            folds: together all positions, each once.

        Returns:
            (N,) scores of the images, (N,) scores of the twins.
        """


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
