"""Benjamini-Hochberg: which of many p-values to flag so that few of the flagged are false alarms.

The service, its client and the Ray job decide with this one function. Standard library only.

Sources: Benjamini, Hochberg, "Controlling the false discovery rate", 1995; for conformal p-values, Bates, Candès, Lei,
Romano, Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 51(1), 2023.
"""

from collections.abc import Sequence
from typing import Final

# q·i/m and p-values are rounded: a p-value that is above its limit by a rounding error counts as equal.
_ROUNDING: Final = 1 + 1e-12


def largest_flagged(p_values: Sequence[float], rate: float) -> float | None:
    """The largest p-value to flag; all that are smaller or equal are flagged as well.

    With the m p-values in ascending order, it is the last one with p₍ᵢ₎ ≤ q·i/m. If the p-values of the normal images
    are independent, or conformal p-values that share one calibration of independent images, the expected share of
    normal images among the flagged is at most q times the share of normal images among all.

    Args:
        p_values: one per image, each in (0, 1], in any order.
        rate: q, in (0, 1).

    Returns:
        A value in (0, q]; None: nothing is flagged.
    """
    limit = rate * _ROUNDING / max(1, len(p_values))
    ranked = enumerate(sorted(p_values), 1)
    return max((p_value for rank, p_value in ranked if p_value <= limit * rank), default=None)
