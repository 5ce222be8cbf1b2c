"""Decides the images of a set together, so that few of those called anomalies are false alarms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from app.false_discovery import largest_flagged
from app.inference.decisions.conformal import Calibration, OperatingPoint, finest_rate_text
from app.inference.errors import UnsupportedFalseAlarmRate


@dataclass(frozen=True)
class FalseDiscoveryRate:
    """Flags images by Benjamini-Hochberg on their conformal p-values; see :mod:`app.false_discovery`.

    Attributes:
        rate: q, in (0, 1): the accepted share of false alarms among the flagged images, on average.
        calibration: gives the p-values.
    """

    rate: float
    calibration: Calibration

    @classmethod
    def of(cls, rate: float, calibration: Calibration) -> Self:
        """The rule for a rate.

        Raises:
            UnsupportedFalseAlarmRate: even the smallest p-value of this calibration is above the rate, so that no
                image could ever be flagged.
        """
        finest = 1 / (calibration.effective_size + 1)
        if rate < finest * (1 - 1e-12):
            raise UnsupportedFalseAlarmRate(
                f"with fdr {rate:g} no image can be flagged: the smallest p-value of {calibration.effective_size} "
                f"{'calibration images' if calibration.groups is None else 'groups of calibration images'} is "
                f"{finest_rate_text(calibration.effective_size, 'marginal')}"
            )
        return cls(rate, calibration)

    def operating_point(self, scores: Sequence[float]) -> OperatingPoint:
        """The threshold that separates the flagged images of a set from the others; it promises no false-alarm rate.

        If no image is flagged, it is the highest score of the set and of the calibration, which none exceeds.

        Args:
            scores: finite, of all images of the set.
        """
        largest = largest_flagged([self.calibration.p_value(score) for score in scores], self.rate)
        if largest is None:
            return OperatingPoint(None, max([*scores, self.calibration.scores[-1]]))
        return OperatingPoint(None, self.calibration.threshold_for(largest))
