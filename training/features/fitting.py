"""Fits the recipe ``features``: one pass of the backbone over the fit images, then heads in closed form."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from app.inference.bundles import torchscript
from training.features.backbone import Backbone, load_backbone
from training.features.detector import THUMBNAIL, FeatureAutoencoder, extract, fit_heads
from training.model.autoencoders import LinearAutoencoder
from training.model.recipes import Recipe


class ImageSet(Protocol):
    """N images, read one at a time, because all of them may not fit into memory as float32."""

    @property
    def shape(self) -> Sequence[int]:
        """(N, C, H, W)."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Each is (C, H, W) float32 in [0, 1]."""


@dataclass(frozen=True)
class FittedFeatures:
    """The fitted network, and the pretrained one that it contains."""

    network: FeatureAutoencoder
    backbone: Backbone


def fit_features(
    recipe: Recipe,
    images: ImageSet,
    groups: Sequence[str],
    *,
    weights: Path | None = None,
    seed: int,
    on_step: Callable[[int], None] = lambda _: None,
) -> FittedFeatures:
    """Fits on normal images.

    Args:
        recipe: names the backbone and the width of the reconstruction's code.
        images: the fit part.
        groups: N names; images of one group show one object.
        weights: file of the backbone's weights; None: those of its package, or downloaded ones.
        seed: of the choice of items and of the folds.
        on_step: called with the number of images after each that passed the backbone.

    Raises:
        TrainingError: the weights cannot be had.
    """
    backbone = load_backbone(recipe.backbone, weights)
    extractor = torchscript.trace(backbone.network, torch.zeros(1, 3, *images.shape[2:]))
    heads = fit_heads(extract(torchscript.optimized(extractor), images, on_step), groups, seed=seed)
    small = torch.cat([_thumbnail(image[None]) for image in images])
    code = max(1, min(recipe.code, len(images) - 1))
    thumbnail = LinearAutoencoder((images.shape[1], THUMBNAIL, THUMBNAIL), code)
    thumbnail.solve(small, seed=seed)
    return FittedFeatures(FeatureAutoencoder(extractor, heads, thumbnail).eval(), backbone)


def _thumbnail(image: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(image, (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
