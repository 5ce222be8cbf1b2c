"""The method of the recipe ``features``: held-out scores, on real features of small images."""

import dataclasses
import math

import pytest
import torch

from app.inference.bundles import torchscript
from training.features.detector import Scale, figures_of, fit_heads
from training.features.extraction import Features
from training.features.method import FeatureMethod
from training.features.variation import turned
from training.model.folds import folds_of, others
from training.model.method import Progress
from training.model.recipes import FEATURES

SIDE, COUNT = 32, 15
GROUPS = [str(position) for position in range(COUNT)]
FOLDS = [[0, 5, 10], [1, 6, 11], [2, 7, 12], [3, 8, 13], [4, 9, 14]]
RECIPE = dataclasses.replace(FEATURES, code=8)


def discs(count: int = COUNT, seed: int = 0) -> torch.Tensor:
    """Bright discs on a noisy ground, 8-bit values / 255."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    disc = 0.35 + 0.3 * ((x.square() + y.square()) < 0.3)
    noisy = disc + 0.04 * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    return (noisy.clamp(0, 1) * 255).round() / 255


def represent(method: FeatureMethod, images: torch.Tensor) -> Features:
    return method.represent(images, range(len(images)), Progress())


@pytest.fixture(scope="module")
def method() -> FeatureMethod:
    return FeatureMethod(RECIPE, size=(SIDE, SIDE), seed=1, threads=1)


@pytest.fixture(scope="module")
def normal(method: FeatureMethod) -> Features:
    return represent(method, discs())


def replaced(features: Features, position: int, other: Features) -> Features:
    """Features in which one image is another one."""
    changed = Features(features.fine.clone(), features.deep.clone(), features.small.clone(), features.skewness.clone())
    changed.fine[position], changed.deep[position] = other.fine[0], other.deep[0]
    changed.small[position] = other.small[0]
    return changed


@pytest.fixture(scope="module")
def outlier(method: FeatureMethod) -> Features:
    image = discs(1, seed=9)
    image[..., 6:26, 14:18] = 0.05  # a scratch
    return represent(method, image)


def test_a_planted_outlier_has_a_high_score_in_its_fold_and_a_low_one_by_the_model_that_saw_it(
    method: FeatureMethod, normal: Features, outlier: Features
) -> None:
    planted = replaced(normal, 6, outlier)
    fitted, held_out = method.cross_fit(planted, FOLDS, Progress())
    assert held_out.argmax() == 6
    assert held_out[6] > 10 * held_out[[0, 1, 2, 3, 4, 5, 7]].max()
    assert fitted.scores(planted)[6] < held_out.median()


def test_held_out_scores_are_those_of_heads_and_scale_of_the_other_folds(
    method: FeatureMethod, normal: Features
) -> None:
    """By hand: an image's heads have not seen its fold, nor does its scale come from an image of its fold."""
    maps = torch.empty(COUNT, 4, 2, 2)
    for fold in FOLDS:
        heads = fit_heads(normal[others(fold, COUNT)], seed=1)
        for at in fold:
            maps[at] = heads(normal.fine[[at]].float(), normal.deep[[at]].float())[0]
    held_out = method.cross_fit(normal, FOLDS, Progress())[1]
    for fold in FOLDS:
        scale = Scale(figures_of(maps)[others(fold, COUNT)])
        torch.testing.assert_close(held_out[fold], scale(maps[fold]))


def test_held_out_scores_of_images_and_of_their_twins(
    method: FeatureMethod, normal: Features, outlier: Features
) -> None:
    of_images, of_twins = method.held_out_scores(normal, replaced(normal, 6, outlier), FOLDS)
    assert torch.equal(of_images, method.cross_fit(normal, FOLDS, Progress())[1])
    assert of_twins[6] > 10 * of_images.max()
    same = others([6], COUNT)
    assert torch.equal(of_images[same], of_twins[same])  # the twins take no part in the fit


def test_scores_of_a_fit_are_those_of_its_archive(method: FeatureMethod, normal: Features) -> None:
    fitted = method.fit(normal, GROUPS, normal[[]], Progress())
    images = discs(6, seed=3)
    model = torchscript.load(torchscript.dump(fitted.network))
    with torch.inference_mode():
        published = model(images)[2]
    # The method holds features in half precision, 11 bits; the archive computes with all of them.
    torch.testing.assert_close(fitted.scores(represent(method, images)), published, rtol=0.02, atol=0)


def test_foreign_images_are_out_of_scope_and_score_above_all_others(method: FeatureMethod, normal: Features) -> None:
    fitted = method.fit(normal, GROUPS, normal[[]], Progress())
    noise = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    foreign = torch.cat([torch.zeros(1, 1, SIDE, SIDE), torch.ones(1, 1, SIDE, SIDE), noise])
    model = torchscript.load(torchscript.dump(fitted.network))
    with torch.inference_mode():
        _, _, score, error_map, scope = model(foreign)
        _, _, of_normal, _, near = model(discs(20, seed=3))
    assert near.max() < 1 < scope.min()
    assert score.min() > fitted.scope.ceiling > 10 * of_normal.max()
    assert torch.equal(score, error_map.flatten(1).amax(1))
    assert fitted.scores(represent(method, foreign)).min() > fitted.scope.ceiling


def test_an_outlier_far_away_is_raised_in_its_fold(method: FeatureMethod, normal: Features) -> None:
    """As if it had been held back: the score that calibrates is that of an image out of scope."""
    black = represent(method, torch.zeros(1, 1, SIDE, SIDE))
    fitted, held_out = method.cross_fit(replaced(normal, 6, black), FOLDS, Progress())
    assert held_out[6] > fitted.scope.ceiling > held_out[others([6], COUNT)].max()


def test_the_scale_of_a_fit_comes_from_two_folds_of_whole_groups(method: FeatureMethod, normal: Features) -> None:
    groups = [f"object {position // 5}" for position in range(COUNT)]
    fitted = method.fit(normal, groups, normal[[]], Progress())
    expected, _ = method.cross_fit(normal, folds_of(groups, 2, 1), Progress())
    assert torch.equal(fitted.scores(normal), expected.scores(normal))
    assert not torch.equal(fitted.scores(normal), method.fit(normal, GROUPS, normal[[]], Progress()).scores(normal))


def test_threads_do_not_change_the_result(method: FeatureMethod, normal: Features) -> None:
    with_two = FeatureMethod(RECIPE, size=(SIDE, SIDE), seed=1, threads=2)
    represented = represent(with_two, discs())
    assert torch.equal(represented.fine, normal.fine)
    assert torch.equal(represented.deep, normal.deep)
    (one, of_one), (two, of_two) = (each.cross_fit(normal, FOLDS, Progress()) for each in (method, with_two))
    assert torch.equal(of_one, of_two)
    ours, theirs = one.network.state_dict(), two.network.state_dict()
    assert all(torch.equal(values, theirs[name]) for name, values in ours.items())


def test_progress_counts_each_image_and_copy_once(method: FeatureMethod, normal: Features) -> None:
    steps = list[int]()
    method.represent(discs(), range(COUNT), Progress(on_step=steps.append), copies=method.copies)
    method.cross_fit(normal, FOLDS, Progress(on_step=steps.append))
    assert sum(steps) == method.steps(COUNT, 0) == method.steps(COUNT, 5) == 2 * COUNT


def test_no_heads_have_seen_a_copy_of_the_image_that_they_score(method: FeatureMethod) -> None:
    images = discs()
    with_copies = method.represent(images, range(COUNT), Progress(), copies=method.copies)
    assert with_copies.copies
    assert sorted(with_copies.copies.of) == list(range(COUNT))
    rest = with_copies[others([6], COUNT)]
    assert rest.copies
    assert len(rest.copies.of) == COUNT - 1
    for at, position in enumerate(rest.copies.of):  # the copy is still that of its image
        number = others([6], COUNT)[position]
        expected = with_copies.copies.fine[with_copies.copies.of.index(number)]
        assert torch.equal(rest.copies.fine[at], expected)


def test_copies_of_normal_images_make_turned_images_less_unusual() -> None:
    """Squares at one angle: a model that has not seen a turned one finds it more unusual."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    square = 0.3 + 0.4 * (torch.maximum(x.abs(), y.abs()) < 0.6)
    noise = 0.02 * torch.randn(COUNT, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    images = (square + noise).clamp(0, 1)
    scores = []
    for copies in (0, 200):
        of = FeatureMethod(dataclasses.replace(RECIPE, copies=copies), size=(64, 64), seed=1, threads=1)
        normal = of.represent(images, range(COUNT), Progress(), copies=of.copies)
        fitted = of.fit(normal, GROUPS, normal[[]], Progress())
        scores.append(fitted.scores(represent(of, turned(images, math.radians(3)))).median())
    without, with_copies = scores
    assert with_copies < 0.8 * without


def test_fewer_copies_of_large_images(method: FeatureMethod) -> None:
    assert method.copies == FEATURES.copies
    large = FeatureMethod(RECIPE, size=(640, 640), seed=1, threads=1)
    assert large.copies == FEATURES.copies // 4
