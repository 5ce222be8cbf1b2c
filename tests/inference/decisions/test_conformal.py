"""Split-conformal thresholds: formulas, limits, and the guarantees in simulations."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.inference.decisions.conformal import (
    Calibration,
    Guarantee,
    OperatingPoint,
    anomaly_rate,
    calibrate,
    finest_false_alarm_rate,
    finest_rate_text,
    is_anomaly,
    required_calibration_size,
    verdict,
)
from app.inference.errors import NonFiniteScore, UnsupportedFalseAlarmRate

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=60)
RATES = st.floats(0.001, 0.999)


@pytest.mark.parametrize(
    ("n", "rate", "rank_from_top"),
    [(1085, 0.01, 10), (99, 0.01, 1), (100, 0.01, 1), (199, 0.01, 2), (99, 0.07, 7), (19, 0.05, 1), (9, 0.5, 5)],
)
def test_threshold_is_the_expected_order_statistic(n: int, rate: float, rank_from_top: int) -> None:
    calibration = Calibration(float(i) for i in range(1, n + 1))
    assert calibration.threshold_for(rate) == n - rank_from_top + 1


@pytest.mark.parametrize(("rate", "size"), [(0.01, 99), (0.05, 19), (0.07, 14), (0.001, 999), (0.5, 1), (0.3, 3)])
def test_required_calibration_size_is_minimal(rate: float, size: int) -> None:
    assert required_calibration_size(rate) == size
    Calibration(range(size)).threshold_for(rate)
    if size > 1:
        with pytest.raises(
            UnsupportedFalseAlarmRate, match=f"at least {size} calibration images, there are {size - 1}"
        ):
            Calibration(range(size - 1)).threshold_for(rate)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, math.nan, math.inf])
def test_rates_outside_the_open_interval_are_not_supported(rate: float) -> None:
    with pytest.raises(UnsupportedFalseAlarmRate, match="between 0 and 1"):
        Calibration([1, 2]).threshold_for(rate)


@pytest.mark.parametrize("n", range(1, 400))
def test_smallest_rate_is_supported_despite_rounding(n: int) -> None:
    assert required_calibration_size(1 / (n + 1)) == n
    assert Calibration(range(n)).threshold_for(1 / (n + 1)) == n - 1


@given(SCORES, RATES)
def test_threshold_follows_the_ceiling_formula(scores: list[float], rate: float) -> None:
    n = len(scores)
    rank = math.ceil((n + 1) * (1 - Fraction(repr(rate)) * (1 + Fraction(1, 10**12))))
    if rank > n:
        with pytest.raises(UnsupportedFalseAlarmRate):
            Calibration(scores).threshold_for(rate)
    else:
        assert Calibration(scores).threshold_for(rate) == sorted(scores)[rank - 1]


@given(SCORES, RATES, st.floats(0, 1))
def test_verdict_and_p_value_agree(scores: list[float], rate: float, score: float) -> None:
    calibration = Calibration(scores)
    if required_calibration_size(rate) <= len(scores):
        assert (score > calibration.threshold_for(rate)) == (
            Fraction(calibration.p_value(score)) <= Fraction(rate) + Fraction(1, 10**12)
        )


@pytest.mark.parametrize("guarantee", ["marginal", "strict"])
@pytest.mark.parametrize("rate", [0.999, 0.9999999999, 0.999999999999, 0.9999999999999, 0.9999999999999999])
def test_rates_close_to_one_give_the_smallest_score(rate: float, guarantee: Guarantee) -> None:
    assert Calibration(range(100)).threshold_for(rate, guarantee) <= 1
    assert required_calibration_size(rate, guarantee) >= 0


@pytest.mark.parametrize("guarantee", ["marginal", "strict"])
@pytest.mark.parametrize("rate", [1e-320, 1e-300, 1e-10])
def test_rates_close_to_zero_are_not_supported(rate: float, guarantee: Guarantee) -> None:
    for function in (required_calibration_size, Calibration(range(100)).threshold_for):
        with pytest.raises(UnsupportedFalseAlarmRate) as caught:
            function(rate, guarantee)
        assert len(str(caught.value)) < 200


def test_p_value_counts_equal_scores() -> None:
    calibration = Calibration([3, 1, 2, 2])
    assert [calibration.p_value(x) for x in (0, 1, 2, 2.5, 3, 4)] == [1, 1, 0.8, 0.4, 0.4, 0.2]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_non_finite_score_has_no_p_value(score: float) -> None:
    with pytest.raises(NonFiniteScore):
        Calibration([1.0]).p_value(score)


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [math.inf]])
def test_calibration_needs_finite_scores(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="score"):
        Calibration(scores)


@pytest.mark.parametrize(("n", "rate"), [(99, 0.01), (150, 0.05), (400, 0.1)])
def test_mean_false_alarm_rate_keeps_the_guarantee(n: int, rate: float) -> None:
    """Repeats the whole procedure: draw scores, calibrate, decide on new scores of the same distribution."""
    random = np.random.default_rng(5)
    repetitions, new = 4000, 50
    alarms = 0
    for _ in range(repetitions):
        threshold = Calibration(random.lognormal(size=n)).threshold_for(rate)
        alarms += int((random.lognormal(size=new) > threshold).sum())
    # The standard error from the threshold (a Beta distribution) and from the new draws (binomial).
    expected = math.floor((n + 1) * rate) / (n + 1)
    spread = math.sqrt(expected * (1 - expected) * (1 / (n + 2) + 1 / new) / repetitions)
    mean = alarms / (repetitions * new)
    assert mean <= rate + 4 * spread
    assert mean >= expected - 4 * spread  # not smaller than necessary: that would miss anomalies


class TestStrict:
    def test_ranks_of_the_shipped_calibration(self) -> None:
        calibration = Calibration(range(1, 1086))
        assert 1085 - calibration.threshold_for(0.01) + 1 == 10
        assert 1085 - calibration.threshold_for(0.01, "strict") + 1 == 6

    @pytest.mark.parametrize(("rate", "size"), [(0.01, 299), (0.05, 59), (0.001, 2995)])
    def test_required_calibration_size_is_minimal(self, rate: float, size: int) -> None:
        assert required_calibration_size(rate, "strict") == size
        assert Calibration(range(size)).threshold_for(rate, "strict") == size - 1
        with pytest.raises(UnsupportedFalseAlarmRate, match=f"strict .* at least {size} calibration images"):
            Calibration(range(size - 1)).threshold_for(rate, "strict")

    @pytest.mark.parametrize("n", [1, 2, 10, 59, 299, 1085, 20_000])
    def test_smallest_rate_is_supported(self, n: int) -> None:
        finest = finest_false_alarm_rate(n, "strict")
        assert Calibration(range(n)).threshold_for(finest, "strict") == n - 1
        assert required_calibration_size(finest, "strict") == n

    @pytest.mark.parametrize(("n", "rate"), [(100, 0.05), (1085, 0.01), (1085, 0.3), (20_000, 0.02), (200_000, 0.5)])
    def test_rank_follows_the_binomial_distribution(self, n: int, rate: float) -> None:
        from scipy.stats import binom

        rank = n - int(Calibration(range(n)).threshold_for(rate, "strict"))
        assert binom.sf(rank - 1, n, rate) >= 0.95 > binom.sf(rank, n, rate)

    def test_strict_guarantee_holds_for_19_of_20_calibration_draws(self) -> None:
        """The scores are uniform, so exactly the share 1 - t of all images is above a threshold t."""
        random = np.random.default_rng(1)
        n, rate, draws = 150, 0.05, 4000
        kept = sum(1 - Calibration(random.random(n)).threshold_for(rate, "strict") <= rate for _ in range(draws))
        assert kept / draws >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / draws)
        marginal = sum(1 - Calibration(random.random(n)).threshold_for(rate) <= rate for _ in range(draws))
        assert marginal / draws < 0.8  # the marginal guarantee does not have this property


class TestVerdict:
    @pytest.mark.parametrize(("score", "expected"), [(0.4, "normal"), (0.5, "normal"), (0.6, "anomaly")])
    def test_anomaly_is_strictly_above_the_threshold(self, score: float, expected: str) -> None:
        point = OperatingPoint(false_alarm_rate=0.05, threshold=0.5)
        assert point.verdict(score) == verdict(score, 0.5) == expected
        assert point.is_anomaly(score) is is_anomaly(score, 0.5) is (expected == "anomaly")

    def test_anomaly_rate(self) -> None:
        assert anomaly_rate([0.4, 0.5, 0.6, 0.7], 0.5) == 0.5


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    """Scores with ties, and their groups, in a random order."""
    sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=12))
    groups = draw(st.permutations([group for group, size in enumerate(sizes) for _ in range(size)]))
    score = st.one_of(st.floats(0, 1), st.sampled_from([0.25, 0.5, 0.75]))
    return draw(st.lists(score, min_size=len(groups), max_size=len(groups))), list(groups)


def exact_p_value(scores: list[float], groups: list[int], score: float) -> Fraction:
    """The definition of hierarchical conformal prediction, as a sum of fractions."""
    weight = sum((Fraction(1, groups.count(g)) for s, g in zip(scores, groups, strict=True) if s >= score), Fraction(0))
    return (1 + weight) / (len(set(groups)) + 1)


class TestGroups:
    @given(SCORES, RATES, st.floats(0, 1))
    def test_groups_of_one_image_are_the_unweighted_rule(self, scores: list[float], rate: float, score: float) -> None:
        plain, single = Calibration(scores), Calibration(scores, [f"object {i}" for i in range(len(scores))])
        assert single.groups is None
        assert single.effective_size == len(scores)
        assert single.p_value(score) == plain.p_value(score)
        n = len(scores)
        assert plain.p_value(score) == (1 + sum(each >= score for each in scores)) / (n + 1)
        if required_calibration_size(rate) <= n:
            assert single.threshold_for(rate) == plain.threshold_for(rate)

    @given(grouped(), st.floats(0, 1))
    def test_p_value_is_the_weighted_sum(self, images: tuple[list[float], list[int]], score: float) -> None:
        calibration = Calibration(*images)
        assert calibration.effective_size == len(set(images[1]))
        for each in (score, *images[0]):
            assert calibration.p_value(each) == float(exact_p_value(*images, each))

    @given(grouped(), st.one_of(RATES, st.fractions(Fraction(1, 50), Fraction(49, 50)).map(float)), st.floats(0, 1))
    def test_score_above_threshold_exactly_if_p_value_at_most_the_rate(
        self, images: tuple[list[float], list[int]], rate: float, score: float
    ) -> None:
        calibration = Calibration(*images)
        if required_calibration_size(rate) > calibration.effective_size:
            with pytest.raises(UnsupportedFalseAlarmRate, match=r"there are \d+; the finest rate"):
                calibration.threshold_for(rate)
            return
        threshold, limit = calibration.threshold_for(rate), Fraction(repr(rate)) * (1 + Fraction(1, 10**12))
        assert threshold in images[0]
        for each in (score, *images[0], *(math.nextafter(s, 2) for s in images[0])):
            assert (each > threshold) == (exact_p_value(*images, each) <= limit)

    @given(grouped(), st.integers(0, 99))
    def test_one_image_per_group_is_a_calibration_without_groups(
        self, images: tuple[list[float], list[int]], seed: int
    ) -> None:
        calibration = Calibration(*images)
        one = calibration.one_per_group(seed)
        assert one.groups is None
        assert len(one) == one.effective_size == calibration.effective_size
        assert not [score for score in one.scores if one.scores.count(score) > images[0].count(score)]
        assert one.scores == calibration.one_per_group(seed).scores

    def test_restoring_scores_and_group_numbers_changes_nothing(self) -> None:
        first = Calibration([3, 1, 2, 2, 5], ["b", "a", "b", "c", "a"])
        again = Calibration(first.scores, first.groups)
        assert (first.scores, first.groups) == (again.scores, again.groups) == ((1, 2, 2, 3, 5), (0, 1, 2, 1, 0))

    @pytest.mark.parametrize("groups", [None, [image % 20 for image in range(340)]])
    def test_promise_of_a_cross_calibration_names_the_folds(self, groups: list[int] | None) -> None:
        calibration = Calibration(range(340), groups)
        folded = calibration.promise(0.05, "marginal", 5)
        assert "the scores come from 5 models, each fitted without the images that it scored" in folded
        assert "if the model fitted on all images scores further normal images no higher" in folded
        held_back = calibration.promise(0.05, "marginal")
        assert "models" not in held_back
        assert folded.endswith("a new camera, other light or a changed product void it")
        assert held_back.endswith("a new camera, other light or a changed product void it")

    def test_groups_and_not_images_are_counted(self) -> None:
        calibration = Calibration(range(340), [image % 20 for image in range(340)])
        assert calibration.threshold_for(1 / 21) == 339
        assert "over draws of the 20 groups with 340 calibration images" in calibration.promise(0.05, "marginal")
        assert "further group" in calibration.promise(0.05, "marginal")
        with pytest.raises(
            UnsupportedFalseAlarmRate,
            match=r"at least 99 groups of calibration images, there are 20; .* support is 0.04762$",
        ):
            calibration.threshold_for(0.01)

    @pytest.mark.parametrize("guarantee", ["marginal", "strict"])
    @pytest.mark.parametrize("size", [3, 13, 16, 19, 99, 1085])
    def test_finest_rate_in_a_message_can_be_used(self, size: int, guarantee: Guarantee) -> None:
        text = finest_rate_text(size, guarantee)
        assert float(text) == pytest.approx(finest_false_alarm_rate(size, guarantee), rel=1e-3)
        assert Calibration(range(size)).threshold_for(float(text), guarantee) == size - 1

    def test_strict_guarantee_needs_one_image_per_group(self) -> None:
        scores, groups = list(range(200)), [image % 100 for image in range(200)]
        with pytest.raises(ValueError, match="one image per group"):
            Calibration(scores, groups).threshold_for(0.05, "strict")
        assert len(calibrate(scores, groups, "marginal", seed=1)) == 200
        strict = calibrate(scores, groups, "strict", seed=1)
        assert len(strict) == 100
        assert strict.scores != calibrate(scores, groups, "strict", seed=2).scores
        strict.threshold_for(0.05, "strict")

    def test_every_score_needs_a_group(self) -> None:
        with pytest.raises(ValueError, match="argument"):
            Calibration([1, 2, 3], [0, 0])

    def test_false_alarm_rate_for_images_of_new_groups(self) -> None:
        """Groups differ much, and small groups score higher: per image, such data give far too many alarms.

        Repeats the whole procedure: draw groups and their images, calibrate, decide on one image of a new group.
        """
        random, rate, repetitions = np.random.default_rng(3), 0.1, 4000

        def draw() -> list[float]:
            small = random.random() < 0.7
            mean = random.normal(2 if small else 0, 1)
            return list(random.normal(mean, 0.3, random.integers(1, 4) if small else random.integers(15, 40)))

        alarms = {"groups": 0, "images": 0, "one per group": 0}
        for _ in range(repetitions):
            drawn = [draw() for _ in range(19)]
            scores = [score for group in drawn for score in group]
            groups = [number for number, group in enumerate(drawn) for _ in group]
            new, calibration = draw()[0], Calibration(scores, groups)
            alarms["groups"] += is_anomaly(new, calibration.threshold_for(rate))
            alarms["images"] += is_anomaly(new, Calibration(scores).threshold_for(rate))
            alarms["one per group"] += is_anomaly(new, calibration.independent.threshold_for(rate))
        error = math.sqrt(rate * (1 - rate) / repetitions)
        assert alarms["groups"] / repetitions <= rate + 3 * error
        assert alarms["one per group"] / repetitions == pytest.approx(rate, abs=3 * error)
        assert alarms["images"] / repetitions > 3 * rate

    def test_strict_guarantee_for_groups_holds_for_19_of_20_calibration_draws(self) -> None:
        """Group means and noise are normal with variance 1 each: the score of a new image has variance 2."""
        random, rate, draws = np.random.default_rng(4), 0.1, 1500
        kept = 0
        for _ in range(draws):
            sizes = random.integers(1, 12, 60)
            means = random.normal(size=60)
            groups = np.repeat(np.arange(60), sizes)
            calibration = calibrate(
                (means[groups] + random.normal(size=len(groups))).tolist(), groups.tolist(), "strict", 7
            )
            kept += math.erfc(calibration.threshold_for(rate, "strict") / 2) / 2 <= rate
        assert kept / draws >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / draws)
