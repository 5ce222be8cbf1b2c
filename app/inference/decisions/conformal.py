"""Split-conformal decisions: from calibration scores to a threshold, a verdict and a p-value.

No other module compares scores with thresholds.

The threshold is an order statistic of the scores of n normal images that neither fitting nor model selection
used. There are two guarantees. Both hold for any model and any score, as long as future images are drawn like the
calibration images:

- ``marginal``: the ⌈(n+1)(1-α)⌉-th smallest score. A further normal image exceeds it with probability at most α,
  on average over calibration draws.
- ``strict``: the smallest order statistic for which, with 95 % confidence over the calibration draw, at most the
  share α of all future normal images exceeds it. The share above the r-th largest of n scores is Beta(r, n+1-r)
  distributed, so r is the largest number with P(Binomial(n, α) ≥ r) ≥ 0.95.

Neither holds for images from another source: a new camera, different light, a changed product.

Sources: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005, and, for the strict guarantee,
Vovk, "Conditional validity of inductive conformal predictors", 2012; Wilks, "Determination of sample sizes for
setting tolerance limits", 1941.
"""

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from app.inference.errors import NonFiniteScore, UnsupportedFalseAlarmRate

Guarantee = Literal["marginal", "strict"]
Verdict = Literal["normal", "anomaly"]

CONFIDENCE: Final = 0.95

# 1/31 has no exact binary form: a rate that is below k/(n+1) by a rounding error counts as k/(n+1).
_ROUNDING: Final = 1 + Fraction(1, 10**12)
_SMALLEST_RATE: Final = 1e-9


def is_anomaly(score: float, threshold: float) -> bool:
    """The decision: exactly ``score > threshold``."""
    return score > threshold


def verdict(score: float, threshold: float) -> Verdict:
    """The decision as text: ``anomaly`` if and only if ``score > threshold``."""
    return "anomaly" if is_anomaly(score, threshold) else "normal"


def anomaly_rate(scores: Sequence[float], threshold: float) -> float:
    """The share of scores above a threshold, in [0, 1]; there must be at least one score."""
    return sum(is_anomaly(score, threshold) for score in scores) / len(scores)


class OperatingPoint(NamedTuple):
    """A false-alarm rate with its threshold.

    Attributes:
        false_alarm_rate: α, guaranteed by the threshold.
        threshold: in score units.
    """

    false_alarm_rate: float
    threshold: float

    def is_anomaly(self, score: float) -> bool:
        """Whether an image with this score is an anomaly."""
        return is_anomaly(score, self.threshold)

    def verdict(self, score: float) -> Verdict:
        """The decision as text."""
        return verdict(score, self.threshold)


def _exact(false_alarm_rate: float) -> Fraction:
    """The rate as the decimal fraction that was written: 0.07 is 7/100, not the nearest binary number."""
    if not 0 < false_alarm_rate < 1:  # NaN fails too
        raise UnsupportedFalseAlarmRate(f"false_alarm_rate must be between 0 and 1, not {false_alarm_rate}")
    if false_alarm_rate < _SMALLEST_RATE:
        raise UnsupportedFalseAlarmRate(
            f"a false alarm rate of {false_alarm_rate:g} is not supported; the minimum is {_SMALLEST_RATE:g}"
        )
    written = Fraction(repr(float(false_alarm_rate)))
    return min(written * _ROUNDING, max(written, 1 - Fraction(1, 10**12)))


def required_calibration_size(false_alarm_rate: float, guarantee: Guarantee = "marginal") -> int:
    """The smallest calibration set that can guarantee a rate.

    Args:
        false_alarm_rate: α, strictly between 0 and 1.
        guarantee: marginal: ⌈1/α⌉ - 1; strict: ⌈log 0.05 / log(1-α)⌉.

    Raises:
        UnsupportedFalseAlarmRate: α is outside (0, 1) or smaller than 1e-9.
    """
    rate = _exact(false_alarm_rate)
    if guarantee == "marginal":
        return math.ceil(1 / rate) - 1
    return math.ceil(math.log1p(-CONFIDENCE) / math.log1p(-_below_one(rate)))


def finest_false_alarm_rate(size: int, guarantee: Guarantee = "marginal") -> float:
    """The smallest false-alarm rate that ``size`` calibration images can guarantee, in (0, 1)."""
    return 1 / (size + 1) if guarantee == "marginal" else -math.expm1(math.log1p(-CONFIDENCE) / size)


@lru_cache(maxsize=1024)  # expensive, and most requests use the same few rates
def _rank_from_top(size: int, false_alarm_rate: float, guarantee: Guarantee) -> int:
    """r, if the threshold is the r-th largest score; 0 if the calibration set is too small."""
    rate = _exact(false_alarm_rate)
    if guarantee == "marginal":
        return math.floor((size + 1) * rate)
    return _strict_rank(size, _below_one(rate))


def _below_one(rate: Fraction) -> float:
    return min(float(rate), math.nextafter(1, 0))


def _strict_rank(size: int, rate: float) -> int:
    """The largest r with P(Binomial(size, rate) < r) ≤ 0.05."""
    below, rank = 0.0, 0
    while rank < size:
        log_mass = (
            math.lgamma(size + 1) - math.lgamma(rank + 1) - math.lgamma(size - rank + 1)
            + rank * math.log(rate) + (size - rank) * math.log1p(-rate)
        )  # fmt: skip
        below += math.exp(log_mass)
        if below > (1 - CONFIDENCE) * (1 + 1e-9):  # the smallest supported rate must pass despite rounding
            break
        rank += 1
    return rank


def promise(false_alarm_rate: float, guarantee: Guarantee, size: int) -> str:
    """The guarantee as a sentence, with what it does not cover.

    Args:
        false_alarm_rate: α.
        guarantee: the kind of guarantee.
        size: number of calibration images.
    """
    drawn = (
        "as long as images are drawn like the calibration images; "
        "a new camera, other light or a changed product void it"
    )
    if guarantee == "strict":
        return (
            f"with {CONFIDENCE:.0%} confidence over the draw of the {size:,} calibration images, at most "
            f"{false_alarm_rate:.4g} of all normal images are called anomalies, {drawn}"
        )
    return (
        f"a further normal image is called an anomaly with probability at most {false_alarm_rate:.4g}, on average "
        f"over draws of the {size:,} calibration images, {drawn}"
    )


class Calibration:
    """The sorted scores of normal images held out for calibration.

    Args:
        scores: finite scores, one per calibration image, in any order; at least one.

    Raises:
        ValueError: the scores are empty or not finite.
    """

    def __init__(self, scores: Iterable[float]) -> None:
        self.scores: tuple[float, ...] = tuple(sorted(float(score) for score in scores))
        if not self.scores:
            raise ValueError("a calibration needs at least one score")
        if not all(map(math.isfinite, self.scores)):
            raise ValueError("calibration scores must be finite")

    def __len__(self) -> int:
        return len(self.scores)

    def threshold_for(self, false_alarm_rate: float, guarantee: Guarantee = "marginal") -> float:
        """The threshold that guarantees a false-alarm rate.

        Args:
            false_alarm_rate: α, strictly between 0 and 1.
            guarantee: see the module docstring.

        Raises:
            UnsupportedFalseAlarmRate: α is outside (0, 1) or smaller than the scores can guarantee; the text gives
                the required number of calibration images.
        """
        rank = _rank_from_top(len(self), false_alarm_rate, guarantee)
        if rank == 0:
            raise UnsupportedFalseAlarmRate(
                f"a {guarantee} false alarm rate of {false_alarm_rate:g} needs at least "
                f"{required_calibration_size(false_alarm_rate, guarantee)} calibration images, there are {len(self)}; "
                f"the finest rate these support is {finest_false_alarm_rate(len(self), guarantee):.4g}"
            )
        return self.scores[len(self) - rank]

    def p_value(self, score: float) -> float:
        """The conformal p-value (1 + #{calibration scores ≥ score}) / (n + 1), in [1/(n+1), 1].

        Under the marginal guarantee, ``score > threshold_for(α)`` is the same decision as ``p_value(score) ≤ α``.

        Raises:
            NonFiniteScore: the score is NaN or infinite.
        """
        if not math.isfinite(score):
            raise NonFiniteScore(f"the model returned a score of {score}")
        scores = self.scores
        return (1 + len(scores) - bisect_left(scores, score)) / (len(scores) + 1)

    def rank(self, score: float) -> int:
        """The number of calibration scores below a finite score, in [0, n]; ties are broken at random."""
        scores = self.scores
        below = bisect_left(scores, score)
        if below == len(scores) or scores[below] != score:
            return below
        equal = bisect_right(scores, score) - below
        return below + int(random.random() * (equal + 1))  # noqa: S311  not a secret; randint is slower
