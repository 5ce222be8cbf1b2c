"""Figures of ranking and rates from the scores of labelled test images."""

from collections.abc import Sequence
from statistics import median

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from app.inference.bundles.manifest import Evaluation, KindFigures, LocalizationFigures
from app.inference.decisions.conformal import anomaly_rate, is_anomaly
from training.data.folders import NORMAL

Row = tuple[str, str]
_Figure = tuple[str, float | None, str]


def evaluate(
    scores: Sequence[float], kinds: Sequence[str], threshold: float, localization: LocalizationFigures | None = None
) -> Evaluation | None:
    """Computes ranking figures and rates; None without test images.

    Args:
        scores: one per test image.
        kinds: one per test image, ``normal`` or the kind of anomaly.
        threshold: images with a higher score are anomalies.
        localization: figures from masks of the defects, if there are any.
    """
    if not scores:
        return None
    values = np.array(scores)
    flagged = np.array([is_anomaly(score, threshold) for score in scores])
    anomalous = np.array([kind != NORMAL for kind in kinds])
    both = anomalous.any() and not anomalous.all()
    return Evaluation(
        normal=int((~anomalous).sum()),
        anomalies=int(anomalous.sum()),
        false_alarm_rate=float(flagged[~anomalous].mean()) if not anomalous.all() else None,
        detection_rate=float(flagged[anomalous].mean()) if anomalous.any() else None,
        auroc=float(roc_auc_score(anomalous, values)) if both else None,
        # Its sum of rounded terms can be 1.0000000000000002.
        average_precision=min(float(average_precision_score(anomalous, values)), 1.0) if both else None,
        kinds={
            kind: _figures([score for score, k in zip(scores, kinds, strict=True) if k == kind], threshold)
            for kind in sorted(set(kinds))
        },
        localization=localization,
    )


def _figures(scores: Sequence[float], threshold: float) -> KindFigures:
    return KindFigures(count=len(scores), flagged=anomaly_rate(scores, threshold), median_score=float(median(scores)))


def evaluation_rows(evaluation: Evaluation) -> list[Row]:
    """The figures as (label, value) for display, without those that could not be computed."""
    rows: tuple[_Figure, ...] = (
        ("AUROC", evaluation.auroc, ".4f"),
        ("average precision", evaluation.average_precision, ".4f"),
        (f"detected of {evaluation.anomalies:,} anomalies", evaluation.detection_rate, ".2%"),
        (f"false alarms on {evaluation.normal:,} normal images", evaluation.false_alarm_rate, ".2%"),
    )
    rows += _localization_rows(evaluation.localization) if evaluation.localization else ()
    return [(label, format(value, pattern)) for label, value, pattern in rows if value is not None]


def _localization_rows(figures: LocalizationFigures) -> tuple[_Figure, ...]:
    return (
        (f"touched by a region, of {figures.defects:,} defects", figures.defects_found, ".2%"),
        (f"on a defect, of {figures.regions:,} regions", figures.regions_on_defects, ".2%"),
        ("AUROC of pixels", figures.pixel_auroc, ".4f"),
        ("AUPRO up to 0.3", figures.aupro, ".4f"),
    )
