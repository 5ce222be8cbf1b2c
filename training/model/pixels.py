"""The method of pixel recipes: an autoencoder that reconstructs the image itself, and a scoring rule."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import nn

from training.model.autoencoders import build
from training.model.fitting import Epoch, fit
from training.model.folds import Fold, folds_of, others
from training.model.interest import BlackOutside
from training.model.method import Fitted, ImageSet, Method, Progress
from training.model.recipes import Recipe
from training.model.scope import FOLDS, Scope, ScopedAutoencoder, fit_pixel_scope
from training.model.scoring_rules import ScoredAutoencoder, ScoringRule

_BATCH = 256


@dataclass(frozen=True)
class PixelMethod(Method[torch.Tensor]):
    """Images represent themselves.

    Attributes:
        recipe: hyperparameters.
        rule: computes the score.
        seed: of the weights, the shuffling and the noise.
        device: where to fit; the result is on the CPU.
        inside: (1, 1, H, W), 1 in the region of interest; the images are black outside. None: all of them counts.
    """

    recipe: Recipe
    rule: ScoringRule
    seed: int
    device: torch.device
    inside: torch.Tensor | None = None
    score: Literal["rule"] = field(default="rule", init=False)

    def steps(self, images: int, folds: int) -> int:
        """One step per image and epoch; each of K folds leaves 1/K of the images out."""
        return self.recipe.epochs * images * max(folds, 1)

    def represent(
        self,
        images: ImageSet,
        positions: Sequence[int],
        progress: Progress,  # noqa: ARG002  takes no time
        *,
        copies: int = 0,  # noqa: ARG002  the network's fit changes images itself
    ) -> torch.Tensor:
        """The images themselves."""
        return images[list(positions)]

    def fit(
        self,
        images: torch.Tensor,
        groups: Sequence[str],
        validation: torch.Tensor,
        progress: Progress,
    ) -> Fitted[torch.Tensor]:
        """Builds the recipe's network and fits it; it is on the CPU, in evaluation mode."""
        autoencoder, epochs = self._autoencoder(images, validation, progress)
        folds = folds_of(groups, FOLDS, self.seed)
        scope, _ = fit_pixel_scope(images, folds, _scores(scored(autoencoder, self.rule), images))
        return fitted(autoencoder, self.rule, scope, epochs)

    def _autoencoder(
        self, images: torch.Tensor, validation: torch.Tensor, progress: Progress
    ) -> tuple[nn.Module, list[Epoch]]:
        torch.manual_seed(self.seed)
        _, channels, height, width = images.shape
        autoencoder = build(self.recipe, (channels, height, width), len(images))
        epochs = fit(
            autoencoder,
            images,
            validation,
            self.recipe,
            seed=self.seed,
            device=self.device,
            on_epoch=progress.on_epoch,
            on_step=progress.on_step,
        )
        limited = autoencoder if self.inside is None else BlackOutside(autoencoder, self.inside)
        return limited, epochs

    def cross_fit(
        self, images: torch.Tensor, folds: Sequence[Fold], progress: Progress
    ) -> tuple[Fitted[torch.Tensor], torch.Tensor]:
        """One model without each fold, then one of all images, all with codes of the same width.

        The number of images limits the width of a linear code. With a wider one than those of the folds, the last model
        would reconstruct further images better, and find less above the threshold that their scores set.
        """
        quiet, scores = Progress(on_step=progress.on_step), torch.empty(len(images))
        fewest = len(images) - max(map(len, folds))
        method = replace(self, recipe=replace(self.recipe, code=max(1, min(self.recipe.code, fewest - 1))))
        for fold in folds:
            scores[fold] = _scores(method._without(fold, images, quiet), images[fold])
        autoencoder, epochs = method._autoencoder(images, images[:0], progress)
        scope, added = fit_pixel_scope(images, folds, scores)
        return fitted(autoencoder, method.rule, scope, epochs), scores + added

    def held_out_scores(
        self, images: torch.Tensor, twins: torch.Tensor, folds: Sequence[Fold]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One model without each fold."""
        of_images, of_twins = torch.empty(len(images)), torch.empty(len(images))
        for fold in folds:
            model = self._without(fold, images, Progress())
            of_images[fold], of_twins[fold] = _scores(model, images[fold]), _scores(model, twins[fold])
        return of_images, of_twins

    def _without(self, fold: Fold, images: torch.Tensor, progress: Progress) -> ScoredAutoencoder:
        """A model that was fitted without a fold, before what is out of scope."""
        return scored(self._autoencoder(images[others(fold, len(images))], images[:0], progress)[0], self.rule)


def fitted(
    autoencoder: nn.Module, rule: ScoringRule, scope: Scope, epochs: Sequence[Epoch] = ()
) -> Fitted[torch.Tensor]:
    """A model from an autoencoder that is fitted already.

    Args:
        autoencoder: (N, C, H, W) → reconstruction of the same shape.
        rule: computes the score.
        scope: says which images are out of scope, from their pixel statistics.
        epochs: passes over the fit part.
    """
    network = ScopedAutoencoder(scored(autoencoder, rule), scope).eval()
    return Fitted(network, lambda images: _scores(network, images), scope, epochs)


def scored(autoencoder: nn.Module, rule: ScoringRule) -> ScoredAutoencoder:
    """An autoencoder with its scoring rule."""
    return ScoredAutoencoder(autoencoder, rule.module()).eval()


@torch.inference_mode()
def _scores(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([network(batch)[2] for batch in torch.split(images, _BATCH)])
