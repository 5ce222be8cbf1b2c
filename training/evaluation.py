"""Evaluation on labelled test images. The results do not influence the model or its threshold."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from app.inference.bundles.bundle import BatchScores
from app.inference.bundles.manifest import Evaluation, KindFigures
from app.inference.bundles.torchscript import ScoringModel
from app.inference.decisions.conformal import anomaly_rate, is_anomaly
from training.data.folders import NORMAL
from training.data.images import Images
from training.workers import in_parallel, most_at_once

_BATCH: Final = 32  # so many fit into the processor's caches
_BATCH_VALUES: Final = 2**23  # of the images in a batch: 32 MB

Row = tuple[str, str]


class Scores(NamedTuple):
    """Of N images.

    Attributes:
        mse: N values, mean squared difference of image and reconstruction.
        score: N values, the numbers that are compared with the threshold.
    """

    mse: list[float]
    score: list[float]


def score_all(model: ScoringModel, images: Images | torch.Tensor, threads: int = 1) -> Scores:
    """Scores images in batches, on the CPU; reconstructions and error maps, which may be large, are dropped.

    Args:
        model: scores batches.
        images: N images; as a tensor, (N, C, H, W) float32 in [0, 1].
        threads: number of threads that compute.
    """
    scores = Scores([], [])
    size = max(1, min(_BATCH, _BATCH_VALUES // math.prod(images.shape[1:])))
    begins, at_once = range(0, len(images), size), most_at_once(*images.shape[2:])
    for batch in in_parallel(lambda at: outputs(model, images[at : at + size]), begins, threads, at_once=at_once):
        scores.mse.extend(batch.mse)
        scores.score.extend(batch.score)
    return scores


@torch.inference_mode()
def outputs(model: ScoringModel, images: torch.Tensor) -> BatchScores:
    """All that a model returns for (N, C, H, W) float32 images in [0, 1]."""
    return BatchScores.of(model(images))


def evaluate(scores: Sequence[float], kinds: Sequence[str], threshold: float) -> Evaluation | None:
    """Computes ranking figures and rates; None without test images.

    Args:
        scores: one per test image.
        kinds: one per test image, ``normal`` or the kind of anomaly.
        threshold: images with a higher score are anomalies.
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
    )


def _figures(scores: Sequence[float], threshold: float) -> KindFigures:
    return KindFigures(count=len(scores), flagged=anomaly_rate(scores, threshold), median_score=float(median(scores)))


def evaluation_rows(evaluation: Evaluation) -> list[Row]:
    """The figures as (label, value) for display, without those that could not be computed."""
    rows = (
        ("AUROC", evaluation.auroc, ".4f"),
        ("average precision", evaluation.average_precision, ".4f"),
        (f"detected of {evaluation.anomalies:,} anomalies", evaluation.detection_rate, ".2%"),
        (f"false alarms on {evaluation.normal:,} normal images", evaluation.false_alarm_rate, ".2%"),
    )
    return [(label, format(value, pattern)) for label, value, pattern in rows if value is not None]
