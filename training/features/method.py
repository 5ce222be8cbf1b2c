"""The method of the recipe ``features``: one pass of the backbone, then heads in closed form."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import torch

from app.inference.bundles import torchscript
from app.inference.bundles.manifest import BackboneRecord
from training.features.backbone import load_backbone
from training.features.detector import FeatureAutoencoder, Heads, Scale, figures_of, fit_heads, statistics_of, without
from training.features.extraction import THUMBNAIL, Copies, Features, extract
from training.features.variation import Varied
from training.model.autoencoders import LinearAutoencoder
from training.model.folds import Fold, folds_of, others
from training.model.interest import cells_inside
from training.model.method import Fitted, ImageSet, Method, Progress
from training.model.recipes import Recipe
from training.model.scope import FOLDS, fit_scope
from training.workers import in_parallel, most_at_once

_LEAST: Final = 1e-6
_FOLDS: Final = 2  # for the scale, if no scores of held-out images are needed
_SPREAD_SHARE: Final = 0.25  # of the spread within images: deviations between images count as at least so large


class FeatureMethod(Method[Features]):
    """Represents images by features of a pretrained network.

    Args:
        recipe: names the backbone, the width of the reconstruction's code, and the number of changed copies.
        size: (height, width) of the images.
        seed: of the choice of items and of the folds.
        threads: number of threads that compute; as many images are worked on at the same time, or fewer large ones.
        weights: file of the backbone's weights; None: those of its package, or downloaded ones.
        inside: (1, 1, H, W), 1 in the region of interest; the images are black outside. None: all of them counts.

    Raises:
        TrainingError: the weights cannot be had.
    """

    score: Literal["maximum"] = "maximum"

    def __init__(
        self,
        recipe: Recipe,
        *,
        size: tuple[int, int],
        seed: int,
        threads: int,
        weights: Path | None = None,
        inside: torch.Tensor | None = None,
    ) -> None:
        backbone = load_backbone(recipe.backbone, weights)
        self.backbone = BackboneRecord(name=backbone.name, licence=backbone.licence, sha256=backbone.sha256)
        self._extractor = torchscript.trace(backbone.network, torch.zeros(1, 3, *size))
        self._code, self._seed, self._threads, self._inside = recipe.code, seed, threads, inside
        self.copies = _fewer_of_large(recipe.copies, size, recipe.folder_size)
        self._at_once = most_at_once(*size)

    def steps(self, images: int, folds: int) -> int:  # noqa: ARG002  the folds share the pass
        """One step per image and copy, for the backbone; the heads take a fraction of its time."""
        return images + min(images, self.copies)

    def represent(self, images: ImageSet, positions: Sequence[int], progress: Progress, *, copies: int = 0) -> Features:
        """One pass of the backbone; there must be at least one position."""
        extractor = torchscript.optimized(self._extractor)

        def features_of(images: ImageSet, positions: Sequence[int]) -> Features:
            return extract(
                extractor, images, positions, threads=self._threads, at_once=self._at_once, on_step=progress.on_step
            )

        features = features_of(images, positions)
        if not copies:
            return features
        order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(self._seed))
        chosen: list[int] = order[:copies].tolist()
        of_copies = features_of(Varied(images, self._seed), [positions[at] for at in chosen])
        return replace(features, copies=Copies(chosen, of_copies.fine, of_copies.deep))

    def fit(
        self,
        images: Features,
        groups: Sequence[str],
        validation: Features,  # noqa: ARG002  there is no loss
        progress: Progress,  # noqa: ARG002  the heads take a fraction of the backbone's time
    ) -> Fitted[Features]:
        """Heads fitted on all images; their scale comes from two folds, what is out of scope from more."""
        folds = folds_of(groups, _FOLDS, self._seed)
        fitted, _ = self._cross_fit(images, folds, folds_of(groups, FOLDS, self._seed))
        return fitted

    def cross_fit(
        self,
        images: Features,
        folds: Sequence[Fold],
        progress: Progress,  # noqa: ARG002  the heads take a fraction of the backbone's time
    ) -> tuple[Fitted[Features], torch.Tensor]:
        """Heads fitted on all images, whose scale comes from held-out images; and the scores of these.

        No head has seen the images that it scores. The scale of a fold comes from the images of the others, which were
        scored by heads that have seen the fold: eight numbers out of all images, and no image weighs much in them.
        """
        return self._cross_fit(images, folds, folds)

    def _cross_fit(
        self, images: Features, folds: Sequence[Fold], scope_folds: Sequence[Fold]
    ) -> tuple[Fitted[Features], torch.Tensor]:
        maps = self._held_out_maps(images, [images], folds)[0]
        heads, scale = self._heads(images), Scale(figures_of(maps))
        held_out = _held_out_scores(maps, maps, folds)
        scope, added = fit_scope(_statistics(images), _SPREAD_SHARE * _spread(images), scope_folds, held_out)
        network = FeatureAutoencoder(
            self._extractor, heads, scale, scope, self._thumbnail(images), THUMBNAIL, self._outside(images)
        ).eval()

        def scores(images: Features) -> torch.Tensor:
            scored: torch.Tensor = scale(self._maps(heads, images)) + scope.added(scope(_statistics(images)))
            return scored

        return Fitted(network, scores, scope), held_out + added

    def held_out_scores(
        self, images: Features, twins: Features, folds: Sequence[Fold]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """By heads fitted without a fold, on a scale from the images outside it."""
        maps, of_twins = self._held_out_maps(images, [images, twins], folds)
        return _held_out_scores(maps, maps, folds), _held_out_scores(of_twins, maps, folds)

    def _held_out_maps(self, images: Features, scored: Sequence[Features], folds: Sequence[Fold]) -> list[torch.Tensor]:
        """For each list of N images: (N, heads, h, w) maps by heads that were fitted without the fold."""

        def heads_without(fold: Fold) -> Heads:
            return self._heads(images[others(fold, len(images))])

        heads = list(in_parallel(heads_without, folds, self._threads, at_once=self._at_once))
        order = [position for fold in folds for position in fold]
        return [
            torch.cat([self._maps(of_fold, each[fold]) for of_fold, fold in zip(heads, folds, strict=True)])[
                torch.tensor(order).argsort()
            ]
            for each in scored
        ]

    def _heads(self, images: Features) -> Heads:
        return fit_heads(images, seed=self._seed, copies=self.copies)

    def _maps(self, heads: Heads, images: Features) -> torch.Tensor:
        """(N, heads, h, w), float32."""
        pairs = zip(torch.split(images.fine, 1), torch.split(images.deep, 1), strict=True)
        maps = in_parallel(
            lambda pair: heads(pair[0].float(), pair[1].float())[0], pairs, self._threads, at_once=self._at_once
        )
        return without(torch.cat([*maps]), self._outside(images))  # no maximum lies outside, as in the published model

    def _outside(self, images: Features) -> torch.Tensor:
        """(h, w), true for places of the fine features that show nothing of the region of interest."""
        height, width = images.fine.shape[2:]
        if self._inside is None:
            return torch.zeros(height, width, dtype=torch.bool)
        return cells_inside(self._inside, (height, width))[0, 0] == 0

    def _thumbnail(self, images: Features) -> LinearAutoencoder:
        _, channels, height, width = images.small.shape
        autoencoder = LinearAutoencoder((channels, height, width), max(1, min(self._code, len(images) - 1)))
        autoencoder.solve(images.small, seed=self._seed)
        return autoencoder


def _fewer_of_large(copies: int, size: tuple[int, int], usual: tuple[int, int]) -> int:
    """The number of copies that have no more pixels than so many of the usual size: features take memory."""
    return min(copies, copies * math.prod(usual) // math.prod(size))


@torch.inference_mode()
def _statistics(images: Features) -> torch.Tensor:
    """(N, F + 1) of represented images, the last one the skewness."""
    means = torch.cat([statistics_of(fine.float()) for fine in torch.split(images.fine, 1)])
    return torch.cat([means, images.skewness.unsqueeze(1)], dim=1)


@torch.inference_mode()
def _spread(images: Features) -> torch.Tensor:
    """(F,): standard deviation of the fine features over the places of an image, mean over the images."""
    spreads = [fine.float().flatten(2).std(2, correction=0) for fine in torch.split(images.fine, 1)]
    return torch.cat(spreads).mean(0).clamp(min=_LEAST)


def _held_out_scores(maps: torch.Tensor, normal_maps: torch.Tensor, folds: Sequence[Fold]) -> torch.Tensor:
    """(N,) scores of maps, each on a scale from the normal maps outside its fold."""
    figures, scores = figures_of(normal_maps), torch.empty(len(maps))
    for fold in folds:
        scores[fold] = Scale(figures[others(fold, len(figures))])(maps[fold])
    return scores
