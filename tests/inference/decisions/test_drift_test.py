"""The drift test: compared with full enumeration for small sizes, and simulated for large ones."""

from itertools import combinations
from math import log

import numpy as np
import pytest

from app.inference.decisions.conformal import Calibration
from app.inference.decisions.drift_test import (
    FALSE_ALARM_PROBABILITY,
    SMALLEST_P_VALUE,
    WINDOW,
    compare,
    critical_value,
    p_value,
)

RNG = np.random.default_rng


def statistic_by_definition(order: list[bool], covered: int) -> float:
    """The statistic of sorted window (True) and calibration scores, computed from its definition."""

    def part(observed: int, expected: float) -> float:
        return observed * log(observed / expected) if observed else 0.0

    total, window = len(order), sum(order)
    size, largest = total - window, 0.0
    for below in range(total + 1):
        under = sum(order[:below])
        if below - under <= covered:
            share = below / total
            table = ((under, window), (below - under, size))
            sides = [part(count, of * share) + part(of - count, of * (1 - share)) for count, of in table]
            largest = max(largest, sum(sides))
    return largest


@pytest.mark.parametrize(("size", "window"), [(1, 6), (3, 8), (5, 4), (7, 5), (12, 4), (6, 6)])
def test_statistic_and_p_value_are_exact(size: int, window: int) -> None:
    """Enumerates all interleavings."""
    statistics = []
    for places in combinations(range(size + window), window):
        order = [place in places for place in range(size + window)]
        found = compare([place - number for number, place in enumerate(places)][::-1], size).statistic
        assert found == pytest.approx(statistic_by_definition(order, int(0.8 * size)), abs=1e-9)
        statistics.append(found)
    for statistic in statistics[:: max(len(statistics) // 100, 1)]:
        share = np.mean(np.array(statistics) > statistic - 1e-7)
        assert p_value(statistic, window, size) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize("size", [1, 2, 30, 99, 1085, 20_000])
def test_critical_value_uses_the_false_alarm_probability(size: int) -> None:
    largest = p_value(critical_value(WINDOW, size), WINDOW, size)
    assert SMALLEST_P_VALUE <= largest <= FALSE_ALARM_PROBABILITY
    if size >= 30:
        assert largest > 0.9 * FALSE_ALARM_PROBABILITY


@pytest.mark.no_cover  # a simulation
@pytest.mark.parametrize(("size", "digits"), [(30, 16), (30, 1), (400, 16), (400, 2)])
def test_false_alarm_probability_without_drift(size: int, digits: int) -> None:
    """The bound is over draws of window and calibration set, so both are drawn each time. Few digits give many ties."""
    random, windows, limit = RNG(size + digits), 6_000, critical_value(WINDOW, size)
    alarms = 0
    for _ in range(windows):
        scores = np.round(random.gamma(4, 0.01, size + WINDOW), digits)
        calibration = Calibration(scores[WINDOW:].tolist())
        alarms += compare([calibration.rank(score) for score in scores[:WINDOW].tolist()], size).statistic >= limit
    expected = windows * FALSE_ALARM_PROBABILITY
    assert alarms <= expected + 4 * expected**0.5
    assert alarms > 0 or digits < 16  # a test that never alarms would be useless


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration(RNG(0).gamma(4, 0.01, 500).tolist())


def compared(calibration: Calibration, scores: np.ndarray) -> tuple[float, bool]:
    return compare([calibration.rank(score) for score in scores.tolist()], len(calibration))


def test_rising_falling_and_spreading_scores_are_detected(calibration: Calibration) -> None:
    random, limit = RNG(1), critical_value(WINDOW, len(calibration))
    for factor, higher in ((1.5, True), (0.7, False), (100, True), (0.001, False)):
        statistic, is_higher = compared(calibration, factor * random.gamma(4, 0.01, WINDOW))
        assert statistic > limit
        assert is_higher is higher
    spread = 0.04 + random.choice([-0.035, 0.035], WINDOW) * random.random(WINDOW)
    assert compared(calibration, spread)[0] > limit
    assert compared(calibration, np.full(WINDOW, calibration.scores[250]))[0] > limit  # a camera with a frozen image


def test_many_anomalies_count_as_drift_but_a_few_do_not(calibration: Calibration) -> None:
    random, limit = RNG(2), critical_value(WINDOW, len(calibration))
    found = {}
    for anomalies in (0, 10, 100):
        scores = random.gamma(4, 0.01, WINDOW)
        scores[:anomalies] = 1
        found[anomalies] = compared(calibration, scores)[0] >= limit
    assert found == {0: False, 10: False, 100: True}


def test_rank_among_equal_scores_is_uniform() -> None:
    calibration = Calibration([0.1, *[0.5] * 3, 0.9])
    assert [calibration.rank(score) for score in (0.0, 0.3, 0.7, 1.0)] == [0, 1, 4, 5]
    drawn = np.bincount([calibration.rank(0.5) for _ in range(4000)], minlength=6)
    assert drawn[[0, 5]].tolist() == [0, 0]
    assert (abs(drawn[1:5] - 1000) < 5 * 750**0.5).all()
