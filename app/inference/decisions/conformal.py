"""Split-conformal decisions: from calibration scores to a threshold, a verdict and a p-value.

No other module compares scores with thresholds.

The scores are those of normal images that neither fitting nor model selection used. Images come in K groups: those of
one group show one object. A score has the weight 1/N if its group has N images, so each group has the weight 1. Images
without groups are groups of one image, with K = n and all weights 1. There are two guarantees. Both hold for any model
and any score, as long as future groups and their images are drawn like those of the calibration:

- ``marginal``: the smallest calibration score t with (1 + weight of the scores above t) / (K + 1) ≤ α. A normal image
  of a further group exceeds it with probability at most α, on average over calibration draws. It needs α ≥ 1/(K+1).
  Without groups, t is the ⌈(n+1)(1-α)⌉-th smallest score.
- ``strict``: for one image per group. The smallest order statistic for which, with 95 % confidence over the calibration
  draw, at most the share α of all future normal images exceeds it. The share above the r-th largest of n scores is
  Beta(r, n+1-r) distributed, so r is the largest number with P(Binomial(n, α) ≥ r) ≥ 0.95.

Neither holds for images from another source: a new camera, different light, a changed product.

Sources: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; for groups, Dunn, Wasserman, Ramdas,
"Distribution-free prediction sets for two-layer hierarchical models", 2022, and Lee, Barber, Willett,
"Distribution-free inference with hierarchical data", 2023; for the strict guarantee, Vovk, "Conditional validity of
inductive conformal predictors", 2012; Wilks, "Determination of sample sizes for setting tolerance limits", 1941.
"""

import math
import random
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from decimal import ROUND_CEILING, Context
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import accumulate
from operator import itemgetter
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
    """A threshold, with the false-alarm rate that it was set for.

    Attributes:
        false_alarm_rate: α, guaranteed by the threshold; None: the threshold was chosen as a number. The share of
            calibration scores above such a threshold is no guarantee, because the threshold may depend on them.
        threshold: in score units.
    """

    false_alarm_rate: float | None
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
    """The smallest number of calibration groups, or of images without groups, that can guarantee a rate.

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
    """The smallest false-alarm rate, in (0, 1), that ``size`` groups, or images without groups, can guarantee."""
    return 1 / (size + 1) if guarantee == "marginal" else -math.expm1(math.log1p(-CONFIDENCE) / size)


def finest_rate_text(size: int, guarantee: Guarantee) -> str:
    """That rate with four digits, rounded up: the number can be used as a rate."""
    rate = finest_false_alarm_rate(size, guarantee)
    return f"{Context(prec=4, rounding=ROUND_CEILING).create_decimal(repr(rate)).normalize():g}"


@lru_cache(maxsize=1024)  # expensive, and most requests use the same few rates
def _share_of(whole: int, false_alarm_rate: float) -> int:
    """⌊α · whole⌋, for the largest whole-number weight that α permits."""
    return math.floor(_exact(false_alarm_rate) * whole)


def _below_one(rate: Fraction) -> float:
    return min(float(rate), math.nextafter(1, 0))


@lru_cache(maxsize=1024)
def _strict_rank(size: int, false_alarm_rate: float) -> int:
    """The largest r with P(Binomial(size, α) < r) ≤ 0.05.

    The sum begins √(60 · size · α) below the mean. What it leaves out is at most e⁻³⁰, by Chernoff's bound, and the sum
    has O(√size) terms.
    """
    rate, below = _below_one(_exact(false_alarm_rate)), 0.0
    mean = size * rate
    rank = max(0, math.floor(mean - math.sqrt(60 * mean)))
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


class Calibration:
    """The sorted scores of normal images held out for calibration, with their groups.

    Args:
        scores: finite scores, one per calibration image, in any order; at least one.
        groups: the group of each score, in the same order; None: every image is its own group.

    Attributes:
        scores: ascending.
        groups: the number of the group of each of them, from 0; None if every image is its own group.
        effective_size: K, the number of groups, which the guarantee counts.

    Raises:
        ValueError: the scores are empty or not finite, or there are more or fewer groups than scores.
    """

    def __init__(self, scores: Iterable[float], groups: Iterable[Hashable] | None = None) -> None:
        values = [float(score) for score in scores]
        if not values:
            raise ValueError("a calibration needs at least one score")
        if not all(map(math.isfinite, values)):
            raise ValueError("calibration scores must be finite")
        own_groups: Iterable[Hashable] = range(len(values))
        pairs = sorted(zip(values, own_groups if groups is None else groups, strict=True), key=itemgetter(0))
        self.scores: tuple[float, ...] = tuple(score for score, _ in pairs)
        names = [name for _, name in pairs]
        sizes = Counter(names)
        numbers = {name: number for number, name in enumerate(sizes)}
        self.groups: tuple[int, ...] | None = (
            None if len(sizes) == len(values) else tuple(numbers[name] for name in names)
        )
        # Weights in units of 1/unit are whole numbers, so sums and comparisons are exact.
        unit = math.lcm(*sizes.values())
        self.effective_size: int = len(sizes)
        self._whole = unit * (len(sizes) + 1)
        # At r: 1 + the weight of the r largest scores. Ascending.
        self._tail = tuple(accumulate((unit // sizes[name] for name in reversed(names)), initial=unit))

    def __len__(self) -> int:
        """The number of images."""
        return len(self.scores)

    @cached_property
    def independent(self) -> "Calibration":
        """One score per group, always the same ones, for tests that assume independent images."""
        return self.one_per_group(seed=0)

    def one_per_group(self, seed: int) -> "Calibration":
        """One score per group, each drawn with the same probability, whatever the scores are."""
        if self.groups is None:
            return self
        members: dict[int, list[float]] = defaultdict(list)
        for score, group in zip(self.scores, self.groups, strict=True):
            members[group].append(score)
        draw = random.Random(seed)  # noqa: S311  not a secret
        return Calibration(draw.choice(scores) for scores in members.values())

    def threshold_for(self, false_alarm_rate: float, guarantee: Guarantee = "marginal") -> float:
        """The threshold that guarantees a false-alarm rate.

        Args:
            false_alarm_rate: α, strictly between 0 and 1.
            guarantee: see the module docstring.

        Raises:
            UnsupportedFalseAlarmRate: α is outside (0, 1) or smaller than the scores can guarantee; the text gives
                the required number of calibration images or groups.
            ValueError: the guarantee is strict, and a group has more than one image.
        """
        rank = self._rank_from_top(false_alarm_rate, guarantee)
        if rank == 0:
            raise UnsupportedFalseAlarmRate(
                f"a {guarantee} false alarm rate of {false_alarm_rate:g} needs at least "
                f"{required_calibration_size(false_alarm_rate, guarantee)} "
                f"{'calibration images' if self.groups is None else 'groups of calibration images'}, "
                f"there are {self.effective_size}; "
                f"the finest rate these support is {finest_rate_text(self.effective_size, guarantee)}"
            )
        return self.scores[len(self) - rank]

    def _rank_from_top(self, false_alarm_rate: float, guarantee: Guarantee) -> int:
        """r, if the threshold is the r-th largest score; 0 if the calibration set is too small."""
        if guarantee == "marginal":
            return bisect_right(self._tail, _share_of(self._whole, false_alarm_rate))
        if self.groups is not None:
            raise ValueError("the strict guarantee needs one image per group")
        return _strict_rank(len(self), false_alarm_rate)

    def promise(self, false_alarm_rate: float, guarantee: Guarantee, folds: int | None = None) -> str:
        """The guarantee for a rate as a sentence, with what it does not cover.

        Args:
            false_alarm_rate: α.
            guarantee: the kind of guarantee.
            folds: number of folds of a cross-calibration; None: the calibration images were held back.
        """
        images, void = f"{len(self):,} calibration images", "a new camera, other light or a changed product void it"
        if folds is not None:
            void = (
                f"the scores come from {folds} models, each fitted without the images that it scored, so the rate "
                f"holds if the model fitted on all images scores further normal images no higher than these do; {void}"
            )
        drawn = f"as long as images are drawn like the calibration images; {void}"
        if guarantee == "strict":
            return (
                f"with {CONFIDENCE:.0%} confidence over the draw of the {images}, at most {false_alarm_rate:.4g} of "
                f"all normal images are called anomalies, {drawn}"
            )
        if self.groups is None:
            return (
                f"a further normal image is called an anomaly with probability at most {false_alarm_rate:.4g}, on "
                f"average over draws of the {images}, {drawn}"
            )
        return (
            f"a normal image of a further group (object) is called an anomaly with probability at most "
            f"{false_alarm_rate:.4g}, on average over draws of the {self.effective_size:,} groups with {images}, as "
            f"long as groups and their images are drawn like those of the calibration; {void}"
        )

    def p_value(self, score: float) -> float:
        """The conformal p-value (1 + weight of the calibration scores ≥ score) / (K + 1), in [1/(K+1), 1].

        Without groups, that is (1 + #{calibration scores ≥ score}) / (n + 1). Under the marginal guarantee,
        ``score > threshold_for(α)`` is the same decision as ``p_value(score) ≤ α``.

        Raises:
            NonFiniteScore: the score is NaN or infinite.
        """
        if not math.isfinite(score):
            raise NonFiniteScore(f"the model returned a score of {score}")
        scores = self.scores
        return self._tail[len(scores) - bisect_left(scores, score)] / self._whole

    def rank(self, score: float) -> int:
        """The number of calibration scores below a finite score, in [0, n]; ties are broken at random."""
        scores = self.scores
        below = bisect_left(scores, score)
        if below == len(scores) or scores[below] != score:
            return below
        equal = bisect_right(scores, score) - below
        return below + int(random.random() * (equal + 1))  # noqa: S311  not a secret; randint is slower


def calibrate(
    scores: Sequence[float], groups: Sequence[Hashable] | None, guarantee: Guarantee, seed: int
) -> Calibration:
    """The calibration that a guarantee can use: all images, or one per group for the strict guarantee.

    Args:
        scores: one per calibration image.
        groups: the group of each image; None: every image is its own group.
        guarantee: the kind of guarantee.
        seed: of the draw of one image per group.
    """
    calibration = Calibration(scores, groups)
    return calibration if guarantee == "marginal" else calibration.one_per_group(seed)
