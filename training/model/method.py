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
from training.model.fitting import Epoch
from training.model.folds import Fold
from training.model.scope import Scope


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
        scope: the part of the network that says which images are out of scope.
        epochs: passes over the fit part; empty for methods that are solved in closed form.
    """

    network: nn.Module
    scores: Callable[[R], torch.Tensor]
    scope: Scope
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
