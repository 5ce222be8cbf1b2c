"""Benjamini-Hochberg on conformal p-values: against SciPy, and the share of false alarms in a simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from app.false_discovery import largest_flagged
from app.inference.decisions.conformal import Calibration
from app.inference.decisions.false_discovery import FalseDiscoveryRate
from app.inference.errors import UnsupportedFalseAlarmRate

N = 199  # calibration images
RATE = 0.1


@given(ranks=st.lists(st.integers(1, N + 1), min_size=1, max_size=80), rate=st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_flagged_p_values_are_those_of_scipy(ranks: list[int], rate: float) -> None:
    """Multiples of 1/(n+1) lie on the limits themselves, where rounding could decide."""
    p_values = [rank / (N + 1) for rank in ranks]
    expected = false_discovery_control(p_values) <= rate * (1 + 1e-9)
    largest = largest_flagged(p_values, rate)
    assert [largest is not None and each <= largest for each in p_values] == expected.tolist()


def test_nothing_is_flagged_among_no_images() -> None:
    assert largest_flagged([], RATE) is None


@given(
    calibration=st.lists(st.integers(0, 30), min_size=20, max_size=60),
    groups=st.integers(10, 60),
    scores=st.lists(st.integers(0, 40), max_size=40),
)
def test_scores_above_the_threshold_are_the_flagged_ones(
    calibration: list[int], groups: int, scores: list[int]
) -> None:
    """Also with ties and with groups of several images."""
    names = [number % groups for number in range(len(calibration))]
    rule = FalseDiscoveryRate.of(RATE, Calibration(calibration, names))
    point = rule.operating_point(scores)
    p_values = [rule.calibration.p_value(score) for score in scores]
    largest = largest_flagged(p_values, RATE)
    assert [point.is_anomaly(score) for score in scores] == [p <= (largest or 0) for p in p_values]
    assert point.false_alarm_rate is None


def test_rate_below_every_possible_p_value_is_not_supported() -> None:
    assert FalseDiscoveryRate.of(1 / 100, Calibration(range(99))).operating_point([1000]).is_anomaly(1000)
    with pytest.raises(UnsupportedFalseAlarmRate, match=r"smallest p-value of 98 calibration images is 0\.01011"):
        FalseDiscoveryRate.of(1 / 100, Calibration(range(98)))
    with pytest.raises(UnsupportedFalseAlarmRate, match="2 groups of calibration images"):
        FalseDiscoveryRate.of(0.3, Calibration(range(4), "aabb"))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("anomalies", [0, 10, 50])
def test_mean_share_of_false_alarms_among_the_flagged_keeps_the_rate(anomalies: int, grouped: bool) -> None:
    """Draws a calibration and a set of 100 images, again and again; each normal image is of a group of its own."""
    random = np.random.default_rng(7)
    repetitions, images, copies = 250, 100, 3 if grouped else 1
    normal, shares, detected = images - anomalies, [], 0
    for _ in range(repetitions):
        levels = random.normal(size=N).repeat(copies)
        calibration = Calibration(levels + 0.3 * random.normal(size=len(levels)), np.arange(N).repeat(copies).tolist())
        scores = random.normal(size=images) + 0.3 * random.normal(size=images)
        scores[normal:] += 4
        point = FalseDiscoveryRate.of(RATE, calibration).operating_point(scores.tolist())
        flagged = scores > point.threshold
        shares.append(flagged[:normal].sum() / max(1, flagged.sum()))
        detected += int(flagged[normal:].sum())
    error = float(np.std(shares)) / repetitions**0.5
    # The theorem: at most q times the share of normal images. Without a correction it would be far above.
    assert float(np.mean(shares)) <= RATE * normal / images + 3 * error
    assert detected >= 0.5 * anomalies * repetitions  # not by flagging nothing
    print(f"{anomalies} anomalies of {images}: mean share {np.mean(shares):.4f} ± {error:.4f}")
