"""The network of the recipe ``features``: a frozen backbone, heads that rebuild its features, one error map.

A defect shows as features that normal images do not have. Two memories rebuild the fine and the deep features of a
place by the nearest normal ones, principal components rebuild the deep ones by a projection. Each head's error map is
smoothed, put on a logarithmic scale and standardised; the sum of the three is the error map, and its maximum the score.

Sources: DFR (Yang, Shi and Qi, 2020) for reconstructing pretrained features; PatchCore (Roth et al., 2022) for memories
with a coreset; MemAE (Gong et al., 2019) for memories as autoencoders.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import torch
from torch import nn

from training.features.heads import fit_components, fit_memory
from training.model.autoencoders import LinearAutoencoder
from training.model.scoring_rules import squared_error

_SIGMA: Final = 1.0  # of the Gaussian that smooths the maps, in places
_RADIUS: Final = 3
_LEAST: Final = 1e-6
_KEPT: Final = 100  # principal components that rebuild the deep features
_DEEP_TAPS: Final = 192  # channels that the components rebuild: the first deep tap
THUMBNAIL: Final = 64
"""Side of the small images that the reconstruction is computed from, in pixels."""


class Features(NamedTuple):
    """Of N images: fine (N, F, h, w), deep (N, D, h', w'), float32."""

    fine: torch.Tensor
    deep: torch.Tensor

    def at(self, indices: Sequence[int]) -> "Features":
        """Of some of the images."""
        return Features(self.fine[list(indices)], self.deep[list(indices)])


class Head(nn.Module):
    """One head with its scale: features (1, C, h, w) → the standardised logarithm of its smoothed map (1, 1, h, w)."""

    def __init__(self, rebuild: nn.Module) -> None:
        super().__init__()
        self.rebuild = rebuild
        offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float32)
        kernel = torch.exp(-offsets.square() / (2 * _SIGMA**2))
        self.register_buffer("kernel", kernel / kernel.sum())
        self.kernel: torch.Tensor
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.radius = _RADIUS
        self.least = _LEAST

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """One image's map."""
        padded = nn.functional.pad(
            self.rebuild(features), [self.radius, self.radius, self.radius, self.radius], mode="replicate"
        )
        across = nn.functional.conv2d(padded, self.kernel.reshape(1, 1, 1, -1))
        smooth = nn.functional.conv2d(across, self.kernel.reshape(1, 1, -1, 1))
        return (smooth.clamp_min(self.least).log() - self.mean) / self.std


class Heads(nn.Module):
    """All heads: features of one image → its error map (1, 1, h, w), positive."""

    def __init__(self, fine: Head, deep: Head, components: Head, channels: int) -> None:
        super().__init__()
        self.fine, self.deep, self.components = fine, deep, components
        self.channels = channels

    def forward(self, fine: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
        """The error map on the grid of the fine features."""
        coarse = self.deep(deep) + self.components(deep[:, : self.channels])
        total: torch.Tensor = self.fine(fine) + nn.functional.interpolate(coarse, fine.shape[2:], mode="bilinear")
        return (total / 3).exp()


class FeatureAutoencoder(nn.Module):
    """What ``model.pt`` is for this recipe.

    Args:
        backbone: (1, 3, H, W) in [0, 1] → fine and deep features.
        heads: features → error map.
        thumbnail: rebuilds images at a small size; the reconstruction that people see.
    """

    def __init__(self, backbone: nn.Module, heads: Heads, thumbnail: LinearAutoencoder) -> None:
        super().__init__()
        self.backbone, self.heads, self.thumbnail = backbone, heads, thumbnail
        self.side = THUMBNAIL

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, C, H, W) in [0, 1] → reconstruction (N, C, H, W), mse (N,), score (N,), map (N, 1, h, w)."""
        small = nn.functional.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        rebuilt = nn.functional.interpolate(self.thumbnail(small), images.shape[2:], mode="bilinear").clamp(0.0, 1.0)
        maps: list[torch.Tensor] = []
        for image in torch.split(images, 1):  # one at a time: batches are slower on a CPU, and take more memory
            fine, deep = self.backbone(image.expand(-1, 3, -1, -1))
            maps.append(self.heads(fine, deep))
        error_map = torch.cat(maps)
        return rebuilt, squared_error(images, rebuilt).flatten(1).mean(1), error_map.flatten(1).amax(1), error_map


def fit_heads(features: Features, groups: Sequence[str], *, seed: int) -> Heads:
    """Heads for the features of normal images.

    Their scales come from images that the heads have not seen: each of two folds of groups is mapped by heads fitted on
    the other.
    """
    channels = min(_DEEP_TAPS, features.deep.shape[1])
    folds = _folds(groups, seed)
    maxima = [
        _maxima(_unscaled(features.at(one), channels, seed), features.at(other), channels)
        for one, other in (folds, folds[::-1])
    ]
    heads = _unscaled(features, channels, seed)
    for head, values in zip((heads.fine, heads.deep, heads.components), torch.cat(maxima, 1), strict=True):
        head.mean, head.std = values.mean(), values.std().clamp(min=_LEAST)
    return heads


def _unscaled(features: Features, channels: int, seed: int) -> Heads:
    return Heads(
        Head(fit_memory(features.fine, seed=seed)),
        Head(fit_memory(features.deep, seed=seed)),
        Head(fit_components(features.deep[:, :channels], _KEPT)),
        channels,
    )


def _maxima(heads: Heads, features: Features, channels: int) -> torch.Tensor:
    """(3, N) maxima of each head's map."""
    rows = [
        [heads.fine(fine).max(), heads.deep(deep).max(), heads.components(deep[:, :channels]).max()]
        for fine, deep in zip(torch.split(features.fine, 1), torch.split(features.deep, 1), strict=True)
    ]
    return torch.tensor(rows).T


@torch.inference_mode()
def map_maxima(heads: Heads, features: Features) -> torch.Tensor:
    """(N,) scores of N images, from their features."""
    pairs = zip(torch.split(features.fine, 1), torch.split(features.deep, 1), strict=True)
    return torch.stack([heads(fine, deep).max() for fine, deep in pairs])


def _folds(groups: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    names = sorted(set(groups))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    first = {names[at] for at in order[::2]}
    return [i for i, g in enumerate(groups) if g in first], [i for i, g in enumerate(groups) if g not in first]


@torch.inference_mode()
def extract(
    backbone: nn.Module, images: Iterable[torch.Tensor], on_step: Callable[[int], None] = lambda _: None
) -> Features:
    """Features of images (C, H, W), one pass over them."""
    fine, deep = [], []
    for image in images:
        one = backbone(image[None].expand(-1, 3, -1, -1))
        fine.append(one[0])
        deep.append(one[1])
        on_step(1)
    return Features(torch.cat(fine), torch.cat(deep))
