"""What is out of scope: the distance, its limit, and how both checks share the promised false alarms."""

import math

import pytest
import torch

from app.inference.bundles import torchscript
from app.inference.decisions.conformal import Calibration
from training.model.autoencoders import DenseAutoencoder
from training.model.folds import folds_of, others
from training.model.method import Progress
from training.model.pixels import PixelMethod, fitted
from training.model.recipes import LINEAR
from training.model.scope import (
    Distance,
    PixelStatistics,
    Polarity,
    Scope,
    fit_pixel_scope,
    fit_scope,
    limit_of,
    skewness_of,
)
from training.model.scoring_rules import SCORING_RULES

COUNT, WIDTH = 300, 20
LEAST = torch.full((WIDTH,), 0.01)
FOLDS = folds_of([str(image) for image in range(COUNT)], 5, 0)


def normal_statistics(count: int = COUNT, seed: int = 0) -> torch.Tensor:
    """Correlated: the first ten vary together."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, WIDTH, generator=generator)
    values[:, :10] += 2 * torch.randn(count, 1, generator=generator)
    return 0.5 + 0.1 * values


def with_skewness(statistics: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Of details that are bright on dark."""
    skewness = 1 + 0.1 * torch.randn(len(statistics), 1, generator=torch.Generator().manual_seed(seed))
    return torch.cat([statistics, skewness], dim=1)


def surfaces(count: int, channels: int = 1, seed: int = 0) -> torch.Tensor:
    """(N, C, 16, 16): a bright bar on a dark ground, a little noise."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.2 + 0.05 * torch.randn(count, channels, 16, 16, generator=generator)
    images[:, :, 5:11] += 0.4 + 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    return images.clamp(0, 1)


def foreign() -> torch.Tensor:
    """(5, 1, 16, 16): black, white, noise, black and white noise, and a negative."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(1, 1, 16, 16, generator=generator)
    return torch.cat([torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16), noise, noise.round(), 1 - surfaces(1)])


def test_distance_knows_which_statistics_vary_together() -> None:
    distance = Distance(normal_statistics(), LEAST)
    together, against = torch.full((1, WIDTH), 0.5), torch.full((1, WIDTH), 0.5)
    together[:, :10] += 0.3
    against[:, :10:2] += 0.3
    against[:, 1:10:2] -= 0.3
    assert against.sub(0.5).abs().sum() == pytest.approx(together.sub(0.5).abs().sum().item())
    assert distance(against) > 1.8 * distance(together)
    assert distance(normal_statistics(seed=1)).square().mean() == pytest.approx(1, abs=0.15)


def test_deviations_count_as_at_least_so_large() -> None:
    alike = torch.full((20, 3), 0.5)
    distance = Distance(alike, torch.tensor([0.1, 0.2, 0.1]))
    assert distance(alike).max() == 0
    one, other = torch.full((1, 3), 0.5), torch.full((1, 3), 0.5)
    one[0, 0] += 0.1
    other[0, 1] += 0.2
    torch.testing.assert_close(distance(one), distance(other))


def test_limit_follows_from_distances_out_of_fold() -> None:
    """By hand: the images of a fold are measured by the others."""
    statistics = normal_statistics()
    statistics[17] += 0.6
    scope, _ = fit_scope(with_skewness(statistics), LEAST, FOLDS, torch.ones(COUNT))
    distances = torch.empty(COUNT)
    for fold in FOLDS:
        distances[fold] = Distance(statistics[others(fold, COUNT)], LEAST)(statistics[fold])
    assert distances.argmax() == 17
    assert scope.limit == limit_of(distances)
    assert scope.largest == distances.max() > Distance(statistics, LEAST)(statistics).max()


def test_limit_is_an_extrapolated_quantile_with_a_margin_and_at_least_the_largest_distance() -> None:
    uniform = torch.linspace(0, 3, 1001)
    excess = (uniform[900:] - uniform[900]).mean().item()
    margin = 1.25 * (1 + 5 / 1001)
    assert limit_of(uniform) == pytest.approx(margin * (uniform[900].item() + math.log(100) * excess), rel=1e-5)
    outlier = torch.cat([torch.ones(200), torch.tensor([9.0])])
    assert limit_of(outlier) == pytest.approx(1.25 * (1 + 5 / 201) * 9)
    assert limit_of(torch.full((5,), 0.01)) == 2  # where all images are alike


@pytest.mark.parametrize("seed", range(5))
def test_few_normal_images_are_out_of_scope(seed: int) -> None:
    scope, _ = fit_scope(with_skewness(normal_statistics(seed=seed), seed), LEAST, FOLDS, torch.ones(COUNT))
    further = scope(with_skewness(normal_statistics(20_000, seed=100 + seed), 200 + seed))
    assert (further > 1).float().mean() <= 0.001
    assert scope(with_skewness(normal_statistics(1, seed=7) + 2)).item() > 1


def test_images_of_one_object_are_measured_by_other_objects() -> None:
    """Ten objects that differ, with thirty images each that do not: one image in a fold must not vouch for the next."""
    generator = torch.Generator().manual_seed(0)
    objects = torch.randn(10, WIDTH, generator=generator).repeat_interleave(30, 0)
    statistics = 0.5 + 0.1 * (objects + 0.05 * torch.randn(COUNT, WIDTH, generator=generator))
    groups = [f"object {image // 30}" for image in range(COUNT)]
    statistics = with_skewness(statistics)
    by_object, _ = fit_scope(statistics, LEAST, folds_of(groups, 5, 0), torch.ones(COUNT))
    by_image, _ = fit_scope(statistics, LEAST, FOLDS, torch.ones(COUNT))
    assert by_object.limit > 1.5 * by_image.limit
    new_objects = with_skewness(0.5 + 0.1 * torch.randn(500, WIDTH, generator=generator))
    assert (by_object(new_objects) > 1).float().mean() < 0.05 < (by_image(new_objects) > 1).float().mean()


def test_what_is_added_to_a_fold_does_not_depend_on_its_images() -> None:
    statistics = with_skewness(normal_statistics())
    statistics[17, :-1] += 2
    scope, added = fit_scope(statistics, LEAST, FOLDS, torch.full((COUNT,), 0.3))
    assert (added > 0).nonzero().flatten().tolist() == [17]
    assert added[17] > scope.ceiling == pytest.approx(100 * 0.3)
    assert scope(statistics[[17]]) < 1  # the limit of all images includes its distance


class TestPolarity:
    """Whether details are bright on dark or dark on bright."""

    def test_skewness_has_the_sign_of_the_details_and_is_zero_for_flat_images(self) -> None:
        images = torch.full((4, 3, 24, 32), 0.5)
        images[0, :, ::8, ::8] += 0.2
        images[1, :, ::8, ::8] -= 0.2
        images[2] += torch.linspace(-0.2, 0.2, 32)
        bright, dark, slope, flat = skewness_of(images).tolist()
        assert bright > 1
        assert dark == pytest.approx(-bright, rel=1e-4)
        assert abs(slope) < 1e-2
        assert flat == 0

    def test_inverted_images_are_out_of_scope_whatever_their_other_statistics(self) -> None:
        statistics = with_skewness(normal_statistics())
        scope, _ = fit_scope(statistics, LEAST, FOLDS, torch.ones(COUNT))
        inverted = with_skewness(normal_statistics(seed=1), 1)
        assert (scope(inverted) > 1).sum() == 0
        inverted[:, -1] *= -1
        assert (scope(inverted) > 1).all()

    def test_the_limit_is_at_least_half_way_to_the_inverted_images(self) -> None:
        """They are 4 away, the normal images within 0.1: a part with a large dark defect is no negative."""
        skewness = 2 + 0.01 * torch.linspace(-1, 1, 101)
        check = Polarity(skewness)
        assert check.limit == pytest.approx(2, abs=0.02)
        torch.testing.assert_close(
            check(torch.tensor([2.0, 1.0, -2.0, 9.0])), torch.tensor([0, 0.5, 2, 0]), atol=0.02, rtol=0
        )

    def test_where_normal_images_are_flat_a_small_skewness_is_no_inverted_image(self) -> None:
        assert (Polarity(torch.zeros(20))(torch.tensor([-0.4, 0.4])) < 1).all()

    def test_where_normal_images_have_either_sign_nothing_is_an_inverted_image(self) -> None:
        skewness = torch.linspace(-1, 1, 100)
        assert (Polarity(skewness)(-skewness) < 1).all()


class TestPixels:
    def model(self, channels: int = 1, rule: str = "mse") -> torchscript.ScoringModel:
        torch.manual_seed(0)
        images = surfaces(100, channels)
        network = DenseAutoencoder((channels, 16, 16), (16,), 4, linear_code=True).eval()
        scope, _ = fit_pixel_scope(images, folds_of([str(at) for at in range(100)], 5, 0), torch.ones(100))
        return torchscript.load(torchscript.dump(fitted(network, SCORING_RULES[rule], scope).network))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_an_archive_gives_the_same_alone_and_in_a_batch(self, channels: int) -> None:
        images = torch.cat([surfaces(6, channels, seed=2), foreign().expand(-1, channels, -1, -1)])
        model = self.model(channels)
        with torch.inference_mode():
            batch = model(images)
            alone = [model(image) for image in images.split(1)]  # type: ignore[no-untyped-call]
        for output, rows in zip(batch, zip(*alone, strict=True), strict=True):
            torch.testing.assert_close(torch.cat(rows), output, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("rule", SCORING_RULES)
    def test_foreign_images_score_above_all_others_and_keep_their_map(self, rule: str) -> None:
        with torch.inference_mode():
            _, _, low, _, near = self.model(rule=rule)(surfaces(200, seed=2))
            rebuilt, _, high, error_map, far = self.model(rule=rule)(foreign())
        assert near.max() < 1 < far.min()
        assert high.min() > 10 * low.max()
        torch.testing.assert_close(error_map, (foreign() - rebuilt).square().mean(1, keepdim=True))

    @pytest.mark.parametrize("size", [(4, 4), (5, 9), (28, 28), (30, 17)])
    def test_statistics_of_any_size(self, size: tuple[int, int]) -> None:
        statistics = PixelStatistics()(torch.rand(3, 1, *size))
        assert statistics.shape[0] == 3
        assert statistics.isfinite().all()

    def test_scores_of_images_in_scope_are_those_of_the_scoring_rule(self) -> None:
        images = surfaces(200, seed=2)
        method = PixelMethod(LINEAR, SCORING_RULES["mse"], seed=1, device=torch.device("cpu"))
        model = method.fit(images, [str(at) for at in range(200)], images[:0], Progress())
        rebuilt, mse, score, *_ = model.network(images)
        assert torch.equal(score, mse)
        torch.testing.assert_close(mse, (images - rebuilt).square().flatten(1).mean(1))


def test_score_and_scope_share_the_promised_false_alarms() -> None:
    """α = 5 %, 99 calibration images, and a check that finds 3 % of the normal images out of scope.

    Raised scores are calibrated like others, so the mean of the false alarms is at most α. Two checks, each with a
    threshold of its own, would raise about 8 %.
    """
    draws, n, fresh, rate = 400, 99, 500, 0.05
    scope = Scope(torch.nn.Flatten(0), Polarity(torch.ones(3)), limit=1, largest=1, ceiling=100).eval()
    generator = torch.Generator().manual_seed(0)
    shared, apart, flagged = [], [], []
    for _ in range(draws):
        plain = torch.rand(n + fresh, generator=generator)
        distance = torch.rand(n + fresh, 1, generator=generator) / 0.97
        out = scope(with_skewness(distance))
        raised = plain + scope.added(out)
        threshold = Calibration(raised[:n].tolist()).threshold_for(rate)
        alone = Calibration(plain[:n].tolist()).threshold_for(rate)
        shared.append((raised[n:] > threshold).float().mean())
        flagged.append((raised[n:] > threshold)[out[n:] > 1].float().mean())
        apart.append(((plain[n:] > alone) | (out[n:] > 1)).float().mean())
    mean, error = torch.stack(shared).mean(), torch.stack(shared).std() / math.sqrt(draws)
    assert rate - 0.005 < mean < rate + 2 * error
    assert torch.stack(flagged).nanmean() > 0.9  # not all: in few draws over 5 % of the calibration images are
    assert torch.stack(apart).mean() > 0.07
