"""Split-conformal decisions: from calibration scores to a threshold and p-values.

The threshold is an order statistic of the scores of n normal images that neither fitting nor model selection
has seen. Two guarantees are on offer, for any model and any score, as long as the images to come are drawn like
the calibration images:

- ``marginal``: the ⌈(n+1)(1-α)⌉-th smallest score. A further normal image exceeds it with probability at most α,
  on average over calibration draws.
- ``strict``: the smallest order statistic under which, with 95 % confidence over the calibration draw, at most the
  share α of all normal images to come exceeds it. The share above the r-th largest of n scores is Beta(r, n+1-r)
  distributed, so r is the largest number with P(Binomial(n, α) ≥ r) ≥ 0.95.

Neither says anything of images from another source: a new camera, other light, a changed product.

Sources: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005, and, for the strict guarantee,
Vovk, "Conditional validity of inductive conformal predictors", 2012; Wilks, "Determination of sample sizes for
setting tolerance limits", 1941.
"""

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Final, Literal

from app.inference.errors import NonFiniteScore, UnsupportedFalseAlarmRate

Guarantee = Literal["marginal", "strict"]

CONFIDENCE: Final = 0.95

# 1/31 has no exact double: a rate that is short of k/(n+1) by rounding alone means k/(n+1).
_ROUNDING: Final = 1 + Fraction(1, 10**12)
_FINEST: Final = 1e-9


def _exact(false_alarm_rate: float) -> Fraction:
    """The rate as it was meant: 0.07 is 7/100, not the nearest binary number."""
    if not 0 < false_alarm_rate < 1:  # NaN fails too
        raise UnsupportedFalseAlarmRate(f"false_alarm_rate must lie between 0 and 1, not {false_alarm_rate}")
    if false_alarm_rate < _FINEST:
        raise UnsupportedFalseAlarmRate(
            f"a false alarm rate of {false_alarm_rate:g} is finer than any data could support"
        )
    written = Fraction(repr(float(false_alarm_rate)))
    return min(written * _ROUNDING, max(written, 1 - Fraction(1, 10**12)))


def required_calibration_size(false_alarm_rate: float, guarantee: Guarantee = "marginal") -> int:
    """The fewest calibration images that can guarantee a rate.

    Args:
        false_alarm_rate: α, strictly between 0 and 1.
        guarantee: marginal: ⌈1/α⌉ - 1; strict: ⌈log 0.05 / log(1-α)⌉.

    Raises:
        UnsupportedFalseAlarmRate: α is outside (0, 1).
    """
    rate = _exact(false_alarm_rate)
    if guarantee == "marginal":
        return math.ceil(1 / rate) - 1
    return math.ceil(math.log1p(-CONFIDENCE) / math.log1p(-_below_one(rate)))


def finest_false_alarm_rate(size: int, guarantee: Guarantee = "marginal") -> float:
    """The least rate that so many calibration images can guarantee."""
    return 1 / (size + 1) if guarantee == "marginal" else -math.expm1(math.log1p(-CONFIDENCE) / size)


@lru_cache(maxsize=1024)  # fractions and thousands of terms, and requests ask for the same few rates
def _rank_from_top(size: int, false_alarm_rate: float, guarantee: Guarantee) -> int:
    """Which largest score is the threshold; 0: none is high enough."""
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
        if below > (1 - CONFIDENCE) * (1 + 1e-9):  # as above: the finest rate itself must pass
            break
        rank += 1
    return rank


def promise(false_alarm_rate: float, guarantee: Guarantee, size: int) -> str:
    """The guarantee in words, with what it does not cover.

    Args:
        false_alarm_rate: α.
        guarantee: what α promises.
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
        ValueError: there is no score, or one is not finite.
    """

    def __init__(self, scores: Iterable[float]) -> None:
        self.scores: tuple[float, ...] = tuple(sorted(float(score) for score in scores))
        if not self.scores:
            raise ValueError("a calibration needs at least one score")
        if not all(map(math.isfinite, self.scores)):
            raise ValueError("calibration scores must be finite")

    def __len__(self) -> int:
        return len(self.scores)

    def threshold(self, false_alarm_rate: float, guarantee: Guarantee = "marginal") -> float:
        """The order statistic above which an image is an anomaly.

        Args:
            false_alarm_rate: α, strictly between 0 and 1.
            guarantee: what α promises, see the module.

        Raises:
            UnsupportedFalseAlarmRate: α is outside (0, 1) or finer than the scores can guarantee; the text says
                how many calibration images it would take.
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

        Under the marginal guarantee, ``score > threshold(α)`` is the same decision as ``p_value(score) ≤ α``.

        Raises:
            NonFiniteScore: the score is NaN or infinite.
        """
        if not math.isfinite(score):
            raise NonFiniteScore(f"the model returned a score of {score}")
        known = self.scores
        return (1 + len(known) - bisect_left(known, score)) / (len(known) + 1)

    def rank(self, score: float) -> int:
        """How many of the scores lie below a finite score, in [0, n]; a place among equals is drawn at random."""
        known = self.scores
        below = bisect_left(known, score)
        if below == len(known) or known[below] != score:
            return below
        equal = bisect_right(known, score) - below
        return below + int(random.random() * (equal + 1))  # noqa: S311  no secret, and randint costs more
