"""Heads and their scale: what the level does and does not change, and the same result alone and as an archive."""

import math

import pytest
import torch

from app.inference.bundles import torchscript
from tests.training.features.test_extraction import TinyBackbone
from training.features.detector import (
    FeatureAutoencoder,
    Heads,
    Scale,
    figures_of,
    fit_heads,
    level_of,
    statistics_of,
    without,
)
from training.features.extraction import THUMBNAIL, Features, extract, thumbnails
from training.model.autoencoders import LinearAutoencoder
from training.model.scope import fit_scope


def normal_features(count: int = 24) -> Features:
    generator = torch.Generator().manual_seed(0)
    return Features(
        torch.randn(count, 6, 8, 8, generator=generator).half(),
        torch.randn(count, 10, 4, 4, generator=generator).half(),
        torch.rand(count, 1, THUMBNAIL, THUMBNAIL, generator=generator),
        torch.ones(count),
    )


def maps_of(heads: Heads, features: Features) -> torch.Tensor:
    pairs = zip(torch.split(features.fine.float(), 1), torch.split(features.deep.float(), 1), strict=True)
    return torch.cat([heads(fine, deep)[0] for fine, deep in pairs])


def normal_maps(count: int = 200) -> torch.Tensor:
    """Maps whose errors and level vary together, as those of images with more or less texture."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(count, 1, 1, 1, generator=generator)
    return whole + 0.3 * torch.randn(count, 4, 6, 6, generator=generator)


def test_heads_give_three_error_maps_and_the_level_on_the_grid_of_the_fine_features() -> None:
    features = normal_features()
    maps = maps_of(fit_heads(features, seed=0), features)
    assert maps.shape == (24, 4, 8, 8)
    assert maps.isfinite().all()


def test_a_foreign_place_has_the_highest_value_of_the_map() -> None:
    features = normal_features()
    heads = fit_heads(features, seed=0)
    maps = maps_of(heads, features)
    scale = Scale(figures_of(maps))
    strange = features[[0]]
    strange.fine[0, :, 2, 5] += 25
    of_strange = maps_of(heads, strange)
    score = scale(of_strange)
    assert score > scale(maps).max()
    error_map = scale.places(score, heads(strange.fine.float(), strange.deep.float())[1])
    assert divmod(int(error_map.argmax()), 8) == (2, 5)
    assert error_map.max() == score
    assert error_map.min() >= 0
    assert (error_map > scale(maps).max()).sum() == 1  # the neighbours of the place are not in its region
    torch.testing.assert_close(level_of(of_strange), level_of(maps[:1]), atol=0.3, rtol=0)  # one place of 64


def test_normal_images_have_a_mean_of_zero_and_a_deviation_of_one_in_each_head() -> None:
    maps = normal_maps()
    scale = Scale(figures_of(maps))
    standardised = (figures_of(maps) - scale.mean) / scale.deviation
    torch.testing.assert_close(standardised.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardised.std(0, correction=0), torch.ones(4), atol=1e-5, rtol=0)


def test_the_score_is_the_mean_of_the_standardised_errors_less_a_share_of_the_level() -> None:
    maps = normal_maps()
    scale = Scale(figures_of(maps))
    (mean, deviation), image = (scale.mean.double(), scale.deviation.double()), maps[:1].double()
    errors = sum((image[0, head] - mean[head]) / deviation[head] for head in range(3)) / 3
    level = (torch.quantile(image[0, 3], 0.25) - mean[3]) / deviation[3]
    assert abs(level) < 3
    expected = math.exp(errors.max() - 0.3 * level)  # type: ignore[union-attr]  # a tensor
    assert scale(maps[:1]).item() == pytest.approx(expected, rel=1e-4)


def test_a_raised_level_counts_less_than_the_same_errors_without_it() -> None:
    """A normal image with a little more texture everywhere is no anomaly; a defect of that strength is one."""
    scale = Scale(figures_of(normal_maps()))
    usual = scale.mean.reshape(1, 4, 1, 1).expand(1, 4, 6, 6)
    step = 2 * scale.deviation.reshape(1, 4, 1, 1)
    everywhere = usual + step
    defect = usual.clone()
    defect[:, :3, 2, 2] += step[:, :3, 0, 0]
    plain, raised, local = (scale(maps).log().item() for maps in (usual, everywhere, defect))
    assert plain == pytest.approx(0, abs=1e-5)
    assert local == pytest.approx(2, abs=1e-5)
    assert raised == pytest.approx(2 - 0.3 * 2, abs=1e-5)


@pytest.mark.parametrize("deviations", [4, 10, 1000])
def test_beyond_normal_images_the_level_takes_nothing_more_away(deviations: float) -> None:
    scale = Scale(figures_of(normal_maps()))
    foreign = (scale.mean + deviations * scale.deviation).reshape(1, 4, 1, 1).expand(1, 4, 6, 6).clone()
    level = foreign.clone()
    level[:, 3] += 50
    assert torch.equal(scale(foreign), scale(level))
    score = scale((scale.mean + 4 * scale.deviation).reshape(1, 4, 1, 1).expand(1, 4, 6, 6))
    torch.testing.assert_close(score.log(), torch.tensor([4 - 0.9]), atol=1e-4, rtol=0)


def test_an_image_in_which_all_is_low_is_raised_by_a_bounded_share() -> None:
    scale = Scale(figures_of(normal_maps()))
    usual = scale.mean.reshape(1, 4, 1, 1).expand(1, 4, 6, 6).clone()
    usual[:, 3] -= 100 * scale.deviation[3]
    torch.testing.assert_close(scale(usual).log(), torch.tensor([0.9]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_archive_scores_alone_and_in_a_batch_alike(channels: int) -> None:
    torch.manual_seed(0)
    images = torch.rand(20, channels, 32, 32)
    backbone = TinyBackbone().eval().requires_grad_(requires_grad=False)
    features = extract(backbone, images, range(20), threads=1)
    thumbnail = LinearAutoencoder((channels, THUMBNAIL, THUMBNAIL), 4)
    heads = fit_heads(features, seed=0)
    scale = Scale(figures_of(maps_of(heads, features)))
    traced = torchscript.trace(backbone, torch.zeros(1, 3, 32, 32))
    statistics = torch.cat([statistics_of(features.fine.float()), features.skewness[:, None]], dim=1)
    folds = [[*range(10)], [*range(10, 20)]]
    scope, _ = fit_scope(statistics, torch.full((statistics.shape[1] - 1,), 0.01), folds, torch.ones(20))
    outside = torch.zeros(8, 8, dtype=torch.bool)
    outside[:, :3] = True
    archive = torchscript.dump(FeatureAutoencoder(traced, heads, scale, scope, thumbnail, THUMBNAIL, outside))
    model = torchscript.load(archive)
    with torch.inference_mode():
        reconstruction, mse, score, error_map, in_scope = model(images)
        alone = [model(image) for image in images.split(1)]  # type: ignore[no-untyped-call]
        rebuilt = thumbnail(thumbnails(images))
    assert reconstruction.shape == images.shape
    assert (reconstruction.min() >= 0) & (reconstruction.max() <= 1)
    assert error_map.shape == (20, 1, 8, 8)
    torch.testing.assert_close(score, error_map.flatten(1).amax(1), rtol=0, atol=0)
    assert (error_map[..., :3] == 0).all()
    torch.testing.assert_close(score, scale(without(maps_of(heads, features), outside)), rtol=1e-2, atol=0)
    torch.testing.assert_close(mse, (images - reconstruction).square().flatten(1).mean(1))
    torch.testing.assert_close(torch.cat([each[2] for each in alone]), score, rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.cat([each[4] for each in alone]), in_scope, rtol=1e-5, atol=0)
    expected = torch.nn.functional.interpolate(rebuilt, (32, 32), mode="bilinear").clamp(0, 1)
    torch.testing.assert_close(reconstruction, expected)


def test_heads_rate_images_of_a_batch_as_alone() -> None:
    features = normal_features()
    heads = fit_heads(features, seed=0)
    whole, _ = heads(features.fine.float(), features.deep.float())
    torch.testing.assert_close(whole, maps_of(heads, features), rtol=1e-4, atol=1e-4)
