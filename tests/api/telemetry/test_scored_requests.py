"""The summary of a request that scored images, for log, metrics and drift."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from app.api.telemetry.scored_requests import summarize
from app.inference.bundles.bundle import Bundle
from app.inference.bundles.store import ModelStore
from app.inference.decisions.conformal import OperatingPoint
from app.inference.errors import UnreadableImage
from app.inference.serving.batch_scorer import Outcome, Rejected, Scored
from app.inference.serving.scoring import Results
from tests.support import make_bundle

BATCH = torch.zeros(1, 1, 8, 8)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    store = ModelStore(tmp_path)
    store.publish(*make_bundle("a", version="20260101T000000Z-000001"))
    return store.load("a", store.current("a"))


def results(bundle: Bundle, outcomes: Sequence[Outcome]) -> Results:
    return Results(bundle, OperatingPoint(0.05, 0.5), outcomes)


def scored(
    score: float,
    *,
    mse: float = 0.1,
    p_value: float = 0.2,
    queue_s: float = 0,
    compute_s: float = 0,
    scope: float | None = None,
) -> Scored:
    return Scored(BATCH, BATCH, 0, None, mse, score, p_value, (), queue_s, compute_s, scope=scope)


def test_summary_counts_scored_and_rejected_images(bundle: Bundle) -> None:
    summary = summarize(
        results(
            bundle,
            [
                scored(0.4, mse=0.01, p_value=0.9, queue_s=3, compute_s=1),
                Rejected(UnreadableImage("not an image")),
                scored(0.6, mse=0.02, p_value=0.1, queue_s=1, compute_s=2),
                scored(0.5, mse=0.03, p_value=0.3),
                scored(0.7, mse=0.04, scope=1.1),
            ],
        )
    )
    assert (summary.model, summary.version) == ("a", "20260101T000000Z-000001")
    assert summary.calibration is bundle.calibration
    assert summary.anomalies == 2
    assert summary.out_of_scope == 1
    assert (summary.mses, summary.scores, summary.p_values) == (
        [0.01, 0.02, 0.03, 0.04],
        [0.4, 0.6, 0.5, 0.7],
        [0.9, 0.1, 0.3, 0.2],
    )
    assert summary.rejected == ["unreadable-image"]
    assert (summary.queue_s, summary.compute_s) == (3, 2)


def test_summary_of_a_request_without_scored_images(bundle: Bundle) -> None:
    summary = summarize(results(bundle, [Rejected(UnreadableImage("not an image"))]))
    assert (summary.anomalies, summary.scores, summary.queue_s, summary.compute_s) == (0, [], 0, 0)
