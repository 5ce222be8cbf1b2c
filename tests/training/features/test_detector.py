"""Heads and detector: their formulas, and the same result alone, in a batch and as an archive."""

import numpy as np
import pytest
import torch
from torch import nn

from app.inference.bundles import torchscript
from training.features.detector import FeatureAutoencoder, Features, fit_heads, map_maxima
from training.features.heads import fit_components, fit_memory
from training.model.autoencoders import LinearAutoencoder


class TinyBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.deep = nn.Conv2d(6, 10, 3, stride=2, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.fine(images)
        return fine, self.deep(fine)


def normal_features(count: int = 24) -> Features:
    generator = torch.Generator().manual_seed(0)
    return Features(torch.randn(count, 6, 8, 8, generator=generator), torch.randn(count, 10, 4, 4, generator=generator))


def test_memory_is_the_distance_to_the_nearest_item() -> None:
    features = normal_features().fine
    memory = fit_memory(features, seed=1)
    places = (features[0].permute(1, 2, 0).reshape(-1, 6) - memory.mean) / memory.std
    nearest = torch.cdist(places, memory.items.T.contiguous()).square().amin(1)
    np.testing.assert_allclose(memory(features[:1]).flatten(), nearest.clamp(min=1e-6), rtol=1e-3, atol=1e-4)


def test_components_rebuild_what_they_keep() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(50, 3, generator=generator) @ torch.randn(3, 10, generator=generator) + 5
    features = flat.T.reshape(1, 10, 5, 10)
    components = fit_components(features, kept=3)
    assert components(features).max() < 1e-3
    assert components(features + torch.randn(10, generator=generator).reshape(1, 10, 1, 1)).min() > 1e-2


def test_a_foreign_place_has_the_highest_value_of_the_map() -> None:
    features = normal_features()
    heads = fit_heads(features, [str(index) for index in range(24)], seed=0)
    strange = features.fine[:1].clone()
    strange[0, :, 2, 5] += 25
    error_map = heads(strange, features.deep[:1])
    assert divmod(int(error_map.argmax()), 8) == (2, 5)
    assert error_map.min() > 0
    assert map_maxima(heads, Features(strange, features.deep[:1])) > map_maxima(heads, features).max()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_archive_scores_alone_and_in_a_batch_alike(channels: int) -> None:
    torch.manual_seed(0)
    images = torch.rand(20, channels, 32, 32)
    backbone = TinyBackbone().eval().requires_grad_(requires_grad=False)
    features = Features(*backbone(images.expand(-1, 3, -1, -1)))
    thumbnail = LinearAutoencoder((channels, 64, 64), 4)
    heads = fit_heads(features, [str(index) for index in range(20)], seed=0)
    traced = torchscript.trace(backbone, torch.zeros(1, 3, 32, 32))
    model = torchscript.load(torchscript.dump(FeatureAutoencoder(traced, heads, thumbnail)))
    with torch.inference_mode():
        reconstruction, mse, score, error_map = model(images)
        alone = [model(image) for image in images.split(1)]  # type: ignore[no-untyped-call]
    assert reconstruction.shape == images.shape
    assert (reconstruction.min() >= 0) & (reconstruction.max() <= 1)
    assert error_map.shape == (20, 1, 8, 8)
    torch.testing.assert_close(score, error_map.flatten(1).amax(1), rtol=0, atol=0)
    torch.testing.assert_close(mse, (images - reconstruction).square().flatten(1).mean(1))
    torch.testing.assert_close(torch.cat([each[2] for each in alone]), score, rtol=1e-5, atol=0)
    torch.testing.assert_close(score, map_maxima(heads, features), rtol=1e-4, atol=0)
