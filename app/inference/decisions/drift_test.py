"""A test for drift: the scores of a window of images against the calibration scores.

m scores of a window and n calibration scores are put in one order. While images are drawn like the calibration
images, each of the C(n+m, m) interleavings of the two is equally likely, whatever the distribution of the scores: the
test is exact for any n. A comparison of p-values with the uniform distribution would alarm too often, because the
calibration images are a sample too.

At a cut of the order, w window scores and x calibration scores lie below. The log-likelihood ratio of that 2 × 2 table
measures how far the window leans to one side; the statistic is its maximum over all cuts with at most
``_COVERED`` of the calibration scores below. It detects scores that rise, fall or spread. The highest scores are left
out: a few anomalies are expected there and are not drift.

The distribution of the statistic follows exactly from counting the interleavings that stay below a value, which are the
lattice paths between two bounds.

Sources: Zhang, "Powerful goodness-of-fit tests based on the likelihood ratio", JRSS B 64, 2002, for the statistic;
Steck, "The Smirnov two sample tests as rank tests", Annals of Mathematical Statistics 40, 1969, for the paths.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

WINDOW: Final = 200
"""Images per window."""

FALSE_ALARM_PROBABILITY: Final = 0.001
"""Upper bound on the probability that a window without drift alarms, over the draw of calibration set and window."""

SMALLEST_P_VALUE: Final = 1e-9
"""The smallest p-value that is reported: the count of paths is a difference from one."""

_COVERED: Final = 0.8
_SAME: Final = 1e-7  # rounding differs by less, distinct statistics differ by more
_PRECISION: Final = 1e-4

_Counts = npt.NDArray[np.int64]
_Truths = npt.NDArray[np.bool_]


class Comparison(NamedTuple):
    """A window against the calibration.

    Attributes:
        statistic: the largest log-likelihood ratio, from 0.
        higher: at the cut of the maximum, fewer images than expected lie below: scores have risen.
    """

    statistic: float
    higher: bool


def compare(ranks: Sequence[int], size: int) -> Comparison:
    """Compares a window with the calibration.

    Args:
        ranks: for each image, the number of calibration scores below its own, from 0 to ``size``; in any order.
        size: n, the number of calibration scores.
    """
    below, window, last = np.sort(np.asarray(ranks, np.int64)), len(ranks), _last_cut(size)
    seen = below[: np.searchsorted(below, last, "right")]
    counted = np.arange(len(seen))
    # Between two images of the window the ratio is convex: its maximum is just before or just after an image.
    cuts = np.concatenate((seen, seen, [last]))
    under = np.concatenate((counted, counted + 1, [len(seen)]))
    ratios = _log_likelihood_ratio(under, cuts, window, size)
    highest = int(ratios.argmax())
    return Comparison(float(ratios[highest]), bool(under[highest] * size < cuts[highest] * window))


@lru_cache(maxsize=1024)
def critical_value(window: int, size: int) -> float:
    """The smallest statistic that alarms: its p-value is at most ``FALSE_ALARM_PROBABILITY``.

    Cached. Takes milliseconds for a thousand calibration scores, about a second for a hundred thousand.
    """
    low, high = 0.0, 1.0
    while p_value(high, window, size) > FALSE_ALARM_PROBABILITY:
        low, high = high, 2 * high
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if p_value(middle, window, size) > FALSE_ALARM_PROBABILITY:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=1024)
def p_value(statistic: float, window: int, size: int) -> float:
    """The exact probability of a statistic at least that large without drift.

    Args:
        statistic: as :func:`compare` gives it.
        window: m, images in the window.
        size: n, calibration scores.

    Returns:
        From ``SMALLEST_P_VALUE`` to 1.
    """
    lowest, highest = _bounds(statistic, window, size)
    if (lowest > highest).any():
        return 1.0
    ways, scale = np.ones(highest[0] - lowest[0] + 1), 0.0
    for image in range(1, window):
        # ways[i]: the number of paths on which the image has lowest + i calibration scores below, times e^-scale.
        reached = np.cumsum(ways)
        kept = reached[lowest[image] - lowest[image - 1] : highest[image] - lowest[image - 1] + 1]
        ways = np.full(highest[image] - lowest[image] + 1, reached[-1])
        ways[: len(kept)] = kept
        scale += math.log(ways[-1])
        ways /= ways[-1]
    all_paths = math.lgamma(size + window + 1) - math.lgamma(size + 1) - math.lgamma(window + 1)
    return min(max(-math.expm1(math.log(ways.sum()) + scale - all_paths), SMALLEST_P_VALUE), 1.0)


def _last_cut(size: int) -> int:
    return math.floor(_COVERED * size)


def _bounds(statistic: float, window: int, size: int) -> tuple[_Counts, _Counts]:
    """The lowest and highest rank of each image, by place, that keep every covered cut below a statistic."""
    images, last = np.arange(window + 1), _last_cut(size)
    expected = -(-images * size // window)  # from this rank on, the images lie too high rather than too low

    def is_below(cuts: _Counts) -> _Truths:
        return _log_likelihood_ratio(images, np.clip(cuts, 0, size), window, size) < statistic - _SAME

    first = _bisect(np.full(window + 1, -1), expected, is_below)
    beyond = _bisect(expected - 1, np.full(window + 1, size + 1), lambda cuts: ~is_below(cuts))
    lowest = np.minimum(first[1:], last + 1)
    highest = np.where(beyond[:-1] <= last, beyond[:-1] - 1, size)
    return lowest, highest


def _bisect(without: _Counts, having: _Counts, holds: Callable[[_Counts], _Truths]) -> _Counts:
    """Element by element, the first integer for which a monotonic condition holds."""
    while (searched := having - without > 1).any():
        middle = (without + having) // 2
        found = holds(middle)
        having = np.where(searched & found, middle, having)
        without = np.where(searched & ~found, middle, without)
    return having


def _log_likelihood_ratio(under: _Counts, cuts: _Counts, window: int, size: int) -> npt.NDArray[np.float64]:
    """Of the tables with w = ``under`` of ``window`` and x = ``cuts`` of ``size`` below: two shares against one."""
    everything, below = window + size, under + cuts
    return np.asarray(
        _n_log_n(under) + _n_log_n(window - under) + _n_log_n(cuts) + _n_log_n(size - cuts)
        - _n_log_n(below) - _n_log_n(everything - below)
        - window * math.log(window) - size * math.log(size) + everything * math.log(everything)
    )  # fmt: skip


def _n_log_n(numbers: _Counts) -> npt.NDArray[np.float64]:
    return np.asarray(numbers * np.log(np.maximum(numbers, 1)))
