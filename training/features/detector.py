"""The network of the recipe ``features``: a frozen backbone, heads that rebuild its features, one error map.

A defect shows as features that normal images do not have. Two memories rebuild the fine and the deep features of a
place by the nearest normal ones, principal components rebuild the deep ones by a projection. Each head's error map is
smoothed, put on a logarithmic scale and standardised; the maximum of their mean is the score.

Normal images differ as a whole, too: in texture, focus or light, which raises the errors of all their places. A density
of the fine features measures this level, by a lower quartile over the places, which a defect does not reach. A share of
it is subtracted from the mean, within the range of normal images, so that an entirely foreign image stays an anomaly.

All heads together say whether an image has a defect; the memory of fine features, unsmoothed, says best where. So the
published error map is that one, on a scale whose maximum is the score.

Sources: DFR (Yang, Shi and Qi, 2020) for reconstructing pretrained features; PatchCore (Roth et al., 2022) for memories
with a coreset; MemAE (Gong et al., 2019) for memories as autoencoders.
"""

import math
from typing import Final

import torch
from torch import nn

from training.features.extraction import Features
from training.features.heads import fit_components, fit_density, fit_memory
from training.model.autoencoders import LinearAutoencoder
from training.model.scope import Scope, skewness_of
from training.model.scoring_rules import squared_error

_SIGMA: Final = 1.0  # of the Gaussian that smooths the maps, in places
_RADIUS: Final = 3
_LEAST: Final = 1e-6
_KEPT: Final = 100  # principal components that rebuild the deep features
_DEEP_TAPS: Final = 192  # channels that the components rebuild: the first deep tap
_LEVEL_SHARE: Final = 0.3  # of the level, in its standard deviations, that is subtracted; chosen on three sets
_LEVEL_LIMIT: Final = 3.0  # standard deviations


class Heads(nn.Module):
    """The heads: features → logarithmic error maps on the grid of the fine features.

    Args:
        fine: rebuilds the fine features.
        deep: rebuilds the deep features.
        components: rebuilds the first channels of the deep features.
        channels: their number.
        level: measures how unusual the fine features are.
    """

    def __init__(
        self, fine: nn.Module, deep: nn.Module, components: nn.Module, channels: int, level: nn.Module
    ) -> None:
        super().__init__()
        self.fine, self.deep, self.components, self.level = fine, deep, components, level
        self.channels = channels
        offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float32)
        kernel = torch.exp(-offsets.square() / (2 * _SIGMA**2))
        self.kernel: torch.Tensor
        self.register_buffer("kernel", kernel / kernel.sum())
        self.radius = _RADIUS
        self.least = _LEAST

    def forward(self, fine: torch.Tensor, deep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fine (N, F, h, w), deep (N, D, h', w') features → logarithmic maps.

        Returns:
            (N, 4, h, w) three smoothed error maps, the level's map; (N, 1, h, w) the first of them, not smoothed.
        """
        error = self.fine(fine)
        maps = [
            self._logarithm(error),
            self._logarithm(self.deep(deep)),
            self._logarithm(self.components(deep[:, : self.channels])),
            self._logarithm(self.level(fine)),
        ]
        grid = (fine.shape[2], fine.shape[3])
        joined = torch.cat([nn.functional.interpolate(each, grid, mode="bilinear") for each in maps], dim=1)
        return joined, error.clamp_min(self.least).log()

    def _logarithm(self, error: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(error, [self.radius, self.radius, self.radius, self.radius], mode="replicate")
        across = nn.functional.conv2d(padded, self.kernel.reshape(1, 1, 1, -1))
        smooth = nn.functional.conv2d(across, self.kernel.reshape(1, 1, -1, 1))
        return smooth.clamp_min(self.least).log()


class Scale(nn.Module):
    """Standardises the maps of the heads and joins them to one score, and to an error map with this maximum.

    Args:
        figures: (N, 4) :func:`figures_of` the maps of normal images that the heads were not fitted on.
    """

    def __init__(self, figures: torch.Tensor) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.register_buffer("mean", figures.mean(0))
        self.register_buffer("deviation", figures.std(0, correction=0).clamp(min=_LEAST))
        self.share, self.limit = _LEVEL_SHARE, _LEVEL_LIMIT

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, 4, h, w) maps, minus infinity where nothing counts → (N,) scores, positive."""
        mean, deviation = self.mean.reshape(1, -1, 1, 1), self.deviation.reshape(1, -1, 1, 1)
        errors = ((maps[:, :-1] - mean[:, :-1]) / deviation[:, :-1]).mean(1)
        level = (level_of(maps) - self.mean[-1]) / self.deviation[-1]
        return (errors.flatten(1).amax(1) - self.share * level.clamp(-self.limit, self.limit)).exp()

    def places(self, score: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
        """(N,) scores, (N, 1, h, w) logarithmic errors of places → error maps (N, 1, h, w) with the score as maximum.

        Two places differ by as much as their standardised errors do.
        """
        below = (errors - errors.flatten(1).amax(1).reshape(-1, 1, 1, 1)) / self.deviation[0]
        return score.reshape(-1, 1, 1, 1) * below.exp()


def figures_of(maps: torch.Tensor) -> torch.Tensor:
    """(N, 4, h, w) maps → (N, 4): the maxima of the three error maps, and the level."""
    return torch.cat([maps[:, :-1].flatten(2).amax(2), level_of(maps).unsqueeze(1)], dim=1)


def level_of(maps: torch.Tensor) -> torch.Tensor:
    """(N, 4, h, w) maps → (N,) lower quartiles of the last one."""
    values = maps[:, -1].flatten(1)
    position = (values.shape[1] - 1) / 4
    below = (values.shape[1] - 1) // 4
    lowest = torch.topk(values, min(below + 2, values.shape[1]), dim=1, largest=False)[0]
    return torch.lerp(lowest[:, below], lowest[:, -1], position - below)


def statistics_of(fine: torch.Tensor) -> torch.Tensor:
    """Fine features (N, F, h, w) → (N, F): their means over the image.

    They tell what an image shows. A defect, which covers few places, hardly changes them; it does change the means of
    the deep features, each place of which sees much of the image.
    """
    return fine.flatten(2).mean(2)


class FeatureAutoencoder(nn.Module):
    """What ``model.pt`` is for this recipe.

    Args:
        extractor: (1, 3, H, W) in [0, 1] → fine and deep features.
        heads: features → maps.
        scale: maps → score, error map.
        scope: of the statistics of an image's features.
        thumbnail: rebuilds images at a small size; the reconstruction that people see.
        side: of the small images, in pixels.
        outside: places that do not count, (h, w).
    """

    def __init__(
        self,
        extractor: nn.Module,
        heads: Heads,
        scale: Scale,
        scope: Scope,
        thumbnail: LinearAutoencoder,
        side: int,
        outside: torch.Tensor,
    ) -> None:
        super().__init__()
        self.extractor, self.heads, self.scale, self.scope, self.thumbnail = extractor, heads, scale, scope, thumbnail
        self.side = side
        self.outside: torch.Tensor
        self.register_buffer("outside", outside)

    def forward(
        self, images: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, C, H, W) in [0, 1] → reconstruction (N, C, H, W), mse (N,), score (N,), map (N, 1, h, w), scope (N,)."""
        small = nn.functional.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        rebuilt = nn.functional.interpolate(self.thumbnail(small), images.shape[2:], mode="bilinear")
        maps: list[torch.Tensor] = []
        errors: list[torch.Tensor] = []
        statistics: list[torch.Tensor] = []
        # On the processor one at a time: in a batch, the values between layers exceed its caches.
        for part in torch.split(images, 1 if images.is_cpu else images.shape[0]):
            fine, deep = self.extractor(part.expand(-1, 3, -1, -1))
            part_maps, part_errors = self.heads(fine, deep)
            maps.append(part_maps)
            errors.append(part_errors)
            statistics.append(statistics_of(fine))
        return self.outputs(images, rebuilt, torch.cat(maps), torch.cat(errors), torch.cat(statistics))

    def outputs(
        self,
        images: torch.Tensor,
        rebuilt: torch.Tensor,
        maps: torch.Tensor,
        errors: torch.Tensor,
        statistics: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What :meth:`forward` returns, from the reconstruction, what the heads return, and the statistics."""
        rebuilt = rebuilt.clamp(0.0, 1.0)
        scope = self.scope(torch.cat([statistics, skewness_of(images).unsqueeze(1)], dim=1))
        score = self.scale(without(maps, self.outside)) + self.scope.added(scope)
        error_map = self.scale.places(score, errors.masked_fill(self.outside, -math.inf))
        return rebuilt, squared_error(images, rebuilt).flatten(1).mean(1), score, error_map, scope


def without(maps: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """(N, 4, h, w) maps, whose error maps are minus infinity in places outside, (h, w); the level stays."""
    return torch.cat([maps[:, :-1].masked_fill(outside, -math.inf), maps[:, -1:]], dim=1)


def fit_heads(features: Features, *, seed: int, copies: int = 0) -> Heads:
    """Heads for the features of normal images, and of at most this many copies of them."""
    fine, deep = features.with_copies(copies)
    channels = min(_DEEP_TAPS, deep.shape[1])
    return Heads(
        fit_memory(fine, seed=seed),
        fit_memory(deep, seed=seed),
        fit_components(deep[:, :channels], _KEPT),
        channels,
        fit_density(fine),
    ).eval()
