"""What rebuilds features: a memory of normal ones, and their principal components.

Both are autoencoders in closed form. The memory rebuilds the features of a place by the nearest of the items that it
holds (hard addressing; Gong et al., "Memorizing normality to detect anomaly", 2019); the principal components rebuild
them by a projection. What they rebuild badly, as a map over the places, is the anomaly.
"""

from typing import Final

import torch
from torch import nn

_PLACES: Final = 40_000
_ITEMS: Final = 2_000
_PROJECTION: Final = 48  # dimensions in which the greedy choice measures distances
_LEAST: Final = 1e-6  # squared distances below are rounding errors


class Memory(nn.Module):
    """Squared distance of each place's features to the nearest item.

    Args:
        mean: (F,), of the fit images' features, by channel.
        std: (F,), likewise.
        items: (K, F), standardised.
    """

    def __init__(self, mean: torch.Tensor, std: torch.Tensor, items: torch.Tensor) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.items: torch.Tensor
        self.squares: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("items", items.T.contiguous())
        self.register_buffer("squares", items.square().sum(1))
        self.least = _LEAST

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, F, h, w) → (N, 1, h, w), positive."""
        places = features.permute(0, 2, 3, 1)
        standard = (places - self.mean) / self.std
        distances = standard.square().sum(3, keepdim=True) + (self.squares - 2 * (standard @ self.items))
        return distances.amin(3).clamp_min(self.least).unsqueeze(1)


class Components(nn.Module):
    """Squared error of each place's features outside the first principal components.

    Args:
        mean: (D,), of the fit images' features.
        residual: (D, R), orthonormal directions outside the components.
    """

    def __init__(self, mean: torch.Tensor, residual: torch.Tensor) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.residual: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("residual", residual)
        self.least = _LEAST

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D, h, w) → (N, 1, h, w), positive."""
        places = features.permute(0, 2, 3, 1) - self.mean
        return (places @ self.residual).square().sum(3).clamp_min(self.least).unsqueeze(1)


def fit_memory(features: torch.Tensor, *, seed: int) -> Memory:
    """A memory of (N, F, h, w) features of normal images: items that a greedy coreset picks from random places.

    Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", 2018.
    """
    mean, std = features.mean((0, 2, 3)), features.std((0, 2, 3)).clamp(min=_LEAST)
    places = _places(features)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(places), generator=generator)[:_PLACES]
    standard = (places[chosen] - mean) / std
    return Memory(mean, std, standard[_coreset(standard, min(_ITEMS, max(1, len(standard) // 4)), generator)])


def fit_components(features: torch.Tensor, kept: int) -> Components:
    """Principal components of (N, D, h, w) features of normal images, of which ``kept`` rebuild."""
    places = _places(features).double()
    _, vectors = torch.linalg.eigh(torch.cov(places.T))  # ascending eigenvalues
    return Components(places.mean(0).float(), vectors[:, : max(1, len(vectors) - kept)].float().contiguous())


def _places(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1).flatten(0, 2).float()


def _coreset(places: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Indices of places, each the farthest from those before it, measured in a random projection."""
    projection = torch.randn(places.shape[1], _PROJECTION, generator=generator) / _PROJECTION**0.5
    points = places @ projection
    squares = points.square().sum(1)
    chosen = torch.empty(count, dtype=torch.long)
    latest = int(torch.randint(len(points), (1,), generator=generator))
    nearest = torch.full((len(points),), torch.inf)
    for at in range(count):
        chosen[at] = latest
        nearest = torch.minimum(nearest, squares + squares[latest] - 2 * (points @ points[latest]))
        latest = int(nearest.argmax())
    return chosen
