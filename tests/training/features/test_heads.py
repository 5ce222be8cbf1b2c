"""Memory, principal components and density: their formulas, and what a greedy coreset chooses."""

import numpy as np
import torch

from training.features.heads import fit_components, fit_density, fit_memory


def features(count: int = 24, channels: int = 6, side: int = 8) -> torch.Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def places(values: torch.Tensor) -> torch.Tensor:
    return values.permute(0, 2, 3, 1).flatten(0, 2).double()


def test_memory_is_the_distance_to_the_nearest_item() -> None:
    normal = features()
    memory = fit_memory(normal.half(), seed=1)
    standardised = ((places(normal[:1]) - memory.mean) / memory.std).float()
    items = memory.items.T / -2
    nearest = torch.cdist(standardised, items).square().amin(1)
    np.testing.assert_allclose(memory(normal[:1]).flatten(), nearest.clamp(min=1e-6), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(memory.mean.double(), places(normal).mean(0), rtol=0, atol=1e-3)
    torch.testing.assert_close(memory.std.double(), places(normal).std(0), rtol=1e-3, atol=0)


def test_memory_holds_rare_places_too() -> None:
    """Random items would be common places; a coreset begins with those that are far from all others."""
    normal = features()
    normal[7, :, 3, 3] = 8
    rare = fit_memory(normal, seed=1)(normal[7:8])[0, 0, 3, 3]
    assert rare < 1e-2


def test_memory_depends_on_the_seed_only() -> None:
    first, second, other = (fit_memory(features(), seed=seed).items for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_components_rebuild_what_they_keep() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(50, 3, generator=generator) @ torch.randn(3, 10, generator=generator) + 5
    normal = flat.T.reshape(1, 10, 5, 10)
    components = fit_components(normal, kept=3)
    assert components(normal).max() < 1e-3
    assert components(normal + torch.randn(10, generator=generator).reshape(1, 10, 1, 1)).min() > 1e-2


def test_density_is_the_mahalanobis_distance_per_channel() -> None:
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    normal = torch.einsum("nfhw,fg->nghw", features(), mixing) + 3
    got = fit_density(normal)(normal)
    assert got.shape == (24, 1, 8, 8)
    flat = places(normal)
    covariance = torch.cov(flat.T)
    shrunk = covariance + 0.01 * covariance.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    centred = flat - flat.mean(0)
    expected = (centred @ torch.linalg.inv(shrunk) * centred).sum(1) / 6
    torch.testing.assert_close(got.flatten().double(), expected, rtol=1e-3, atol=1e-4)
