"""The drift test: compares the scores of a window of images with the calibration scores.

The m scores of a window and the n calibration scores are sorted together. While images are drawn like the calibration
images, each of the C(n+m, m) interleavings of the two is equally likely, whatever the distribution of the scores. The
test is therefore exact for any n. Comparing p-values with the uniform distribution would alarm too often, because the
calibration images are a sample too.

At each cut of the sorted scores, w window scores and x calibration scores are below. The log-likelihood ratio of this
2 × 2 table measures how unevenly the cut divides the two; the statistic is its maximum over all cuts with at most the
share ``_COVERED`` of the calibration scores below. It detects scores that rise, fall or spread. The highest scores are
excluded: a few anomalies are expected there and are not drift.

The exact distribution of the statistic is computed by counting the interleavings whose statistic stays below a value.
These are the lattice paths between two bounds.

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
"""Upper bound on the probability of an alarm without drift, over the draw of the calibration set and the window."""

SMALLEST_P_VALUE: Final = 1e-9
"""The smallest p-value that is reported: p-values are computed as 1 minus a share, with a rounding error below this."""

_COVERED: Final = 0.8
_SAME: Final = 1e-7  # above rounding errors, below the difference of distinct statistics
_PRECISION: Final = 1e-4  # of the critical value

_Counts = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


class Comparison(NamedTuple):
    """The result of comparing a window with the calibration.

    Attributes:
        statistic: the largest log-likelihood ratio, at least 0.
        higher: whether scores have risen: fewer images than expected are below the cut of the maximum.
    """

    statistic: float
    higher: bool


def compare(ranks: Sequence[int], size: int) -> Comparison:
    """Compares a window with the calibration.

    Args:
        ranks: for each image of the window, the number of calibration scores below its score, from 0 to ``size``; in
            any order.
        size: n, the number of calibration scores.
    """
    below, window, last = np.sort(np.asarray(ranks, np.int64)), len(ranks), _last_cut(size)
    covered = below[: np.searchsorted(below, last, "right")]
    places = np.arange(len(covered))
    # Between two images of the window the ratio is convex: its maximum is just before or just after an image.
    cuts = np.concatenate((covered, covered, [last]))
    under = np.concatenate((places, places + 1, [len(covered)]))
    ratios = _log_likelihood_ratio(under, cuts, window, size)
    highest = int(ratios.argmax())
    return Comparison(float(ratios[highest]), bool(under[highest] * size < cuts[highest] * window))


@lru_cache(maxsize=1024)
def critical_value(window: int, size: int) -> float:
    """The smallest statistic that counts as drift: its p-value is at most ``FALSE_ALARM_PROBABILITY``.

    Cached. Takes milliseconds for a thousand calibration scores, about a second for a hundred thousand.

    Args:
        window: m, images in the window.
        size: n, calibration scores.
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
    """The exact probability of a statistic at least this large without drift.

    Args:
        statistic: of :func:`compare`.
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
    """For each place in the sorted window, the lowest and highest rank that keep all covered cuts below a statistic."""
    images, last = np.arange(window + 1), _last_cut(size)
    expected = -(
        -images * size // window
    )  # at higher ranks the ratio grows because scores are too high, at lower ranks because they are too low

    def is_below(cuts: _Counts) -> _Flags:
        return _log_likelihood_ratio(images, np.clip(cuts, 0, size), window, size) < statistic - _SAME

    first = _bisect(np.full(window + 1, -1), expected, is_below)
    beyond = _bisect(expected - 1, np.full(window + 1, size + 1), lambda cuts: ~is_below(cuts))
    lowest = np.minimum(first[1:], last + 1)
    highest = np.where(beyond[:-1] <= last, beyond[:-1] - 1, size)
    return lowest, highest


def _bisect(low: _Counts, high: _Counts, holds: Callable[[_Counts], _Flags]) -> _Counts:
    """Element by element, the smallest integer for which a monotonic condition holds: in (``low``, ``high``]."""
    while (searched := high - low > 1).any():
        middle = (low + high) // 2
        found = holds(middle)
        high = np.where(searched & found, middle, high)
        low = np.where(searched & ~found, middle, low)
    return high


def _log_likelihood_ratio(under: _Counts, cuts: _Counts, window: int, size: int) -> npt.NDArray[np.float64]:
    """Log-likelihood ratio (separate shares against one common share) of the 2 × 2 tables of cuts.

    Args:
        under: w, window scores below each cut, of ``window``.
        cuts: x, calibration scores below each cut, of ``size``.
        window: m.
        size: n.
    """
    total, below = window + size, under + cuts
    return np.asarray(
        _n_log_n(under) + _n_log_n(window - under) + _n_log_n(cuts) + _n_log_n(size - cuts)
        - _n_log_n(below) - _n_log_n(total - below)
        - window * math.log(window) - size * math.log(size) + total * math.log(total)
    )  # fmt: skip


def _n_log_n(numbers: _Counts) -> npt.NDArray[np.float64]:
    return np.asarray(numbers * np.log(np.maximum(numbers, 1)))
