"""Figures on labelled test images; nothing is chosen by them."""

from collections.abc import Sequence
from statistics import median

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from app.inference.bundles.bundle import BatchScores
from app.inference.bundles.manifest import Evaluation, KindFigures
from app.inference.bundles.torchscript import ScoringModel
from training.data.folders import NORMAL

_BATCH = 256


def score_all(model: ScoringModel, images: torch.Tensor) -> BatchScores:
    """Scores (N, C, H, W) in batches, on the CPU and through the very archive that will be served."""
    with torch.inference_mode():
        parts = [model(batch) for batch in torch.split(images, _BATCH)]
    if not parts:
        return BatchScores(images, [], [])
    reconstruction, mse, score = (torch.cat(column) for column in zip(*parts, strict=True))
    return BatchScores(reconstruction, mse.tolist(), score.tolist())


def evaluate(scores: Sequence[float], kinds: Sequence[str], threshold: float) -> Evaluation | None:
    """Ranks and rates; None without test images.

    Args:
        scores: one per test image.
        kinds: ``normal`` or the kind of anomaly, one per test image.
        threshold: above it an image is an anomaly.
    """
    if not scores:
        return None
    values = np.array(scores)
    flagged = values > threshold
    anomalous = np.array([kind != NORMAL for kind in kinds])
    both = anomalous.any() and not anomalous.all()
    return Evaluation(
        normal=int((~anomalous).sum()),
        anomalies=int(anomalous.sum()),
        false_alarm_rate=float(flagged[~anomalous].mean()) if not anomalous.all() else None,
        detection_rate=float(flagged[anomalous].mean()) if anomalous.any() else None,
        auroc=float(roc_auc_score(anomalous, values)) if both else None,
        average_precision=float(average_precision_score(anomalous, values)) if both else None,
        kinds={kind: _figures(values[[k == kind for k in kinds]], threshold) for kind in sorted(set(kinds))},
    )


def _figures(values: np.ndarray, threshold: float) -> KindFigures:
    return KindFigures(
        count=len(values), flagged=float((values > threshold).mean()), median_score=float(median(values))
    )
