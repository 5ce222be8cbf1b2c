"""The figures of a calibrated score on test images, and how tables show them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from app.inference.decisions.conformal import Calibration, anomaly_rate, required_calibration_size
from training.data.folders import NORMAL

RATES = (0.01, 0.05)

Quantity = Callable[["Figures"], float]
"""One of the figures; NaN if it cannot be had."""


@dataclass(frozen=True)
class Figures:
    """The accuracy of one score.

    Attributes:
        auroc: area under the ROC curve.
        precision: average precision.
        detected: detection rate, by guaranteed false-alarm rate.
        alarmed: share of the normal test images that are called anomalies, by guaranteed false-alarm rate.
        kinds: AUROC of each kind of anomaly against the normal images.
    """

    auroc: float
    precision: float
    detected: dict[float, float]
    alarmed: dict[float, float]
    kinds: dict[str, float]


def judge(
    calibration: Calibration,
    scores: npt.NDArray[np.float64],
    test_kinds: Sequence[str],
    rates: Iterable[float] = RATES,
) -> Figures:
    """The figures of known scores.

    Args:
        calibration: sets the thresholds.
        scores: of the test images, which are normal images and anomalies.
        test_kinds: ``normal`` or the kind of anomaly, one per test image.
        rates: guaranteed false-alarm rates; those that the calibration cannot guarantee are left out.
    """
    kinds = np.array(test_kinds)
    anomalous = kinds != NORMAL
    thresholds = {
        rate: calibration.threshold_for(rate)
        for rate in rates
        if calibration.effective_size >= required_calibration_size(rate)
    }
    return Figures(
        auroc=float(roc_auc_score(anomalous, scores)),
        precision=float(average_precision_score(anomalous, scores)),
        detected={rate: anomaly_rate(scores[anomalous].tolist(), at) for rate, at in thresholds.items()},
        alarmed={rate: anomaly_rate(scores[~anomalous].tolist(), at) for rate, at in thresholds.items()},
        kinds={
            kind: float(roc_auc_score(kinds[chosen] != NORMAL, scores[chosen]))
            for kind in sorted(set(test_kinds) - {NORMAL})
            for chosen in [np.isin(kinds, [NORMAL, kind])]
        },
    )


def quantities(kinds: Sequence[str] = ()) -> dict[str, Quantity]:
    """What tables show, by heading.

    Args:
        kinds: the kinds of anomalies to show separately.
    """
    return {
        "AUROC": lambda figures: figures.auroc,
        **{f"AUROC, {kind}": partial(_of_kind, kind) for kind in kinds},
        "av. precision": lambda figures: figures.precision,
        **{
            f"{what} at {rate:.0%}": partial(quantity, rate)
            for rate in RATES
            for what, quantity in (("detected", _detected), ("false alarms", _alarmed))
        },
    }


def _of_kind(kind: str, figures: Figures) -> float:
    return figures.kinds[kind]


def _detected(rate: float, figures: Figures) -> float:
    return figures.detected.get(rate, math.nan)


def _alarmed(rate: float, figures: Figures) -> float:
    return figures.alarmed.get(rate, math.nan)


def with_range(values: Sequence[float]) -> str:
    """Mean, smallest and largest value; a NaN is a rate that was not guaranteed."""
    if any(map(math.isnan, values)):
        return "not guaranteed"
    return f"{mean(values):.3f} [{min(values):.3f}–{max(values):.3f}]"


def with_deviation(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
