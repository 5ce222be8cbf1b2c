"""Split-conformal decisions: from calibration scores to a threshold and p-values.

Given the scores of n normal pictures that neither fitting nor model selection has seen, a further normal
picture drawn from the same source exceeds the ⌈(n+1)(1-α)⌉-th smallest of them with probability at most α.
The guarantee is marginal (on average over calibration draws) and holds for any model and any score.

Source: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Laxhammar and Falkman,
"Conformal prediction for distribution-independent anomaly detection in streaming vessel data", 2010.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from app.inference.errors import NonFiniteScore, UnsupportedFalseAlarmRate

# 1/31 has no exact double: a rate that is short of k/(n+1) by rounding alone means k/(n+1).
_ROUNDING: Final = 1 + Fraction(1, 10**12)


def _exact(false_alarm_rate: float) -> Fraction:
    """The rate as it was meant: 0.07 is 7/100, not the nearest binary number."""
    if not 0 < false_alarm_rate < 1:  # NaN fails too
        raise UnsupportedFalseAlarmRate(f"false_alarm_rate must lie between 0 and 1, not {false_alarm_rate}")
    return Fraction(repr(float(false_alarm_rate))) * _ROUNDING


def required_calibration_size(false_alarm_rate: float) -> int:
    """The fewest calibration pictures that can guarantee a rate: ⌈1/α⌉ - 1.

    Args:
        false_alarm_rate: α, strictly between 0 and 1.

    Raises:
        UnsupportedFalseAlarmRate: α is outside (0, 1).
    """
    return math.ceil(1 / _exact(false_alarm_rate)) - 1


class Calibration:
    """The sorted scores of normal pictures held out for calibration.

    Args:
        scores: finite scores, one per calibration picture, in any order; at least one.

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

    def threshold(self, false_alarm_rate: float) -> float:
        """The ⌈(n+1)(1-α)⌉-th smallest score; a picture is an anomaly exactly if it scores above it.

        Args:
            false_alarm_rate: α, strictly between 0 and 1 and at least 1/(n+1).

        Raises:
            UnsupportedFalseAlarmRate: α is outside (0, 1) or below 1/(n+1); the text says how many
                calibration pictures it would take.
        """
        tolerated = math.floor((len(self) + 1) * _exact(false_alarm_rate))
        if tolerated == 0:
            raise UnsupportedFalseAlarmRate(
                f"a false alarm rate of {false_alarm_rate:g} needs at least "
                f"{required_calibration_size(false_alarm_rate)} calibration images, there are {len(self)}; "
                f"the finest rate these support is {1 / (len(self) + 1):.4g}"
            )
        return self.scores[len(self) - tolerated]

    def p_value(self, score: float) -> float:
        """The conformal p-value (1 + #{calibration scores ≥ score}) / (n + 1), in [1/(n+1), 1].

        ``score > threshold(α)`` is the same decision as ``p_value(score) ≤ α``.

        Raises:
            NonFiniteScore: the score is NaN or infinite.
        """
        if not math.isfinite(score):
            raise NonFiniteScore(f"the model returned a score of {score}")
        at_least = len(self) - bisect_left(self.scores, score)
        return (1 + at_least) / (len(self) + 1)
