"""The figures of scores that are known."""

import math

import numpy as np
import pytest

from app.inference.decisions.conformal import Calibration
from benchmarks.accuracy.figures import Figures, judge, quantities, with_deviation, with_range

SCORES = np.array([1, 50, 98, 97, 200, 300, 40], np.float64)
KINDS = ("normal", "normal", "normal", "a", "a", "b", "b")


def test_figures_of_a_known_score() -> None:
    figures = judge(Calibration(range(100)), SCORES, KINDS)
    # 100 calibration scores: the threshold is the largest (99) at 1 %, the fifth-largest (95) at 5 %.
    assert figures.detected == {0.01: 0.5, 0.05: 0.75}
    assert figures.alarmed == {0.01: 0, 0.05: pytest.approx(1 / 3)}
    assert figures.auroc == pytest.approx(9 / 12)
    assert figures.kinds == {"a": pytest.approx(5 / 6), "b": pytest.approx(4 / 6)}


def test_groups_decide_which_rates_are_guaranteed() -> None:
    """100 images of 20 objects guarantee 5 %, and not 1 %."""
    figures = judge(Calibration(range(100), [number // 5 for number in range(100)]), SCORES, KINDS)
    assert set(figures.detected) == set(figures.alarmed) == {0.05}
    shown = quantities(["b"])
    assert math.isnan(shown["detected at 1%"](figures))
    assert shown["detected at 5%"](figures) == figures.detected[0.05]
    assert shown["AUROC, b"](figures) == figures.kinds["b"]


def test_a_table_says_that_a_rate_is_not_guaranteed() -> None:
    figures = Figures(auroc=0.5, precision=0.5, detected={}, alarmed={}, kinds={})
    assert with_range([quantities()["detected at 1%"](figures), 0.5]) == "not guaranteed"


def test_values_with_their_spread() -> None:
    assert with_range([0.25, 0.5, 0.75]) == "0.500 [0.250–0.750]"
    assert with_deviation([0.25, 0.75]) == "0.5000 ± 0.3536"
    assert with_deviation([0.25]) == "0.2500"
