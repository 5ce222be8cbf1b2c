"""Have the images changed? The scores of a window of images against the scores of the calibration images.

m scores of a window and n calibration scores are put in one order. While images are drawn like the calibration
images, each of the C(n+m, m) ways in which the two can be interleaved is equally likely, whatever the scores: no
approximation, and n need not be large. A comparison of p-values with the uniform distribution would alarm too often,
for the calibration images are a sample too.

At a cut of the order, w window scores and x calibration scores lie below. The log-likelihood ratio of that 2 × 2 table
says how much the window leans to one side; the statistic is its largest value over all cuts that have at most
``_LOOKED_AT`` of the calibration scores below. It finds scores that rise as well as scores that fall or spread. The
uppermost scores are left out, where anomalies lie: a few of these are what the service is for, and no drift.

How likely a value is follows exactly from counting the interleavings that stay under it, which are the lattice paths
between two bounds.

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
"""Images that are compared at a time."""

FALSE_ALARM_PROBABILITY: Final = 0.001
"""At most this, over the draw of the calibration images and of a window: that an unchanged window alarms."""

SMALLEST_P_VALUE: Final = 1e-9
"""Probabilities below cannot be told from it: the count of paths is a difference from one."""

_LOOKED_AT: Final = 0.8
_SAME: Final = 1e-7  # two ways to compute one statistic differ by less, two statistics by more
_PRECISION: Final = 1e-4

_Counts = npt.NDArray[np.int64]
_Truths = npt.NDArray[np.bool_]


class Comparison(NamedTuple):
    """A window against the calibration.

    Attributes:
        statistic: the largest log-likelihood ratio, from 0.
        higher: at the cut where it was found, fewer images than expected lie below: scores have risen.
    """

    statistic: float
    higher: bool


def compare(ranks: Sequence[int], size: int) -> Comparison:
    """Compares a window with the calibration.

    Args:
        ranks: how many calibration scores lie below each image's, from 0 to ``size``, in any order.
        size: n, how many calibration scores there are.
    """
    below, window, last = np.sort(np.asarray(ranks, np.int64)), len(ranks), _last_cut(size)
    seen = below[: np.searchsorted(below, last, "right")]
    counted = np.arange(len(seen))
    # Between two images of the window the ratio is convex: it is largest just before or just after an image.
    cuts = np.concatenate((seen, seen, [last]))
    under = np.concatenate((counted, counted + 1, [len(seen)]))
    ratios = _log_likelihood_ratio(under, cuts, window, size)
    highest = int(ratios.argmax())
    return Comparison(float(ratios[highest]), bool(under[highest] * size < cuts[highest] * window))


@lru_cache(maxsize=1024)
def limit(window: int, size: int) -> float:
    """The statistic from which on a window alarms: its chance is at most ``FALSE_ALARM_PROBABILITY``.

    Takes some milliseconds for a thousand calibration scores and about a second for a hundred thousand, once.
    """
    low, high = 0.0, 1.0
    while chance(high, window, size) > FALSE_ALARM_PROBABILITY:
        low, high = high, 2 * high
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if chance(middle, window, size) > FALSE_ALARM_PROBABILITY:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=1024)
def chance(statistic: float, window: int, size: int) -> float:
    """The probability that an unchanged window's statistic is that large or larger: its p-value. Exact.

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
        # ways[i]: so many paths on which the image has lowest + i calibration scores below, times e^-scale.
        reached = np.cumsum(ways)
        kept = reached[lowest[image] - lowest[image - 1] : highest[image] - lowest[image - 1] + 1]
        ways = np.full(highest[image] - lowest[image] + 1, reached[-1])
        ways[: len(kept)] = kept
        scale += math.log(ways[-1])
        ways /= ways[-1]
    all_paths = math.lgamma(size + window + 1) - math.lgamma(size + 1) - math.lgamma(window + 1)
    return min(max(-math.expm1(math.log(ways.sum()) + scale - all_paths), SMALLEST_P_VALUE), 1.0)


def _last_cut(size: int) -> int:
    return math.floor(_LOOKED_AT * size)


def _bounds(statistic: float, window: int, size: int) -> tuple[_Counts, _Counts]:
    """Between which ranks each image of a window, by its place, stays below a statistic at every cut looked at."""
    images, last = np.arange(window + 1), _last_cut(size)
    expected = -(-images * size // window)  # from here on the images lie too high, if anything

    def is_below(cuts: _Counts) -> _Truths:
        return _log_likelihood_ratio(images, np.clip(cuts, 0, size), window, size) < statistic - _SAME

    first = _bisect(np.full(window + 1, -1), expected, is_below)
    beyond = _bisect(expected - 1, np.full(window + 1, size + 1), lambda cuts: ~is_below(cuts))
    lowest = np.minimum(first[1:], last + 1)
    highest = np.where(beyond[:-1] <= last, beyond[:-1] - 1, size)
    return lowest, highest


def _bisect(without: _Counts, having: _Counts, holds: Callable[[_Counts], _Truths]) -> _Counts:
    """The first integers, element by element, of which a condition holds that does not turn back."""
    while (searched := having - without > 1).any():
        middle = (without + having) // 2
        found = holds(middle)
        having = np.where(searched & found, middle, having)
        without = np.where(searched & ~found, middle, without)
    return having


def _log_likelihood_ratio(under: _Counts, cuts: _Counts, window: int, size: int) -> npt.NDArray[np.float64]:
    """Of the tables of w = ``under`` of ``window`` and x = ``cuts`` of ``size`` below: different shares against one."""
    everything, below = window + size, under + cuts
    return np.asarray(
        _n_log_n(under) + _n_log_n(window - under) + _n_log_n(cuts) + _n_log_n(size - cuts)
        - _n_log_n(below) - _n_log_n(everything - below)
        - window * math.log(window) - size * math.log(size) + everything * math.log(everything)
    )  # fmt: skip


def _n_log_n(numbers: _Counts) -> npt.NDArray[np.float64]:
    return np.asarray(numbers * np.log(np.maximum(numbers, 1)))
