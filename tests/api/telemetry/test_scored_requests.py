"""What the account of a request says of its images."""

import asyncio
from pathlib import Path

import pytest
import torch

from app.api.telemetry.scored_requests import account, verdict
from app.inference.bundles.store import ModelStore
from app.inference.errors import UnreadableImage
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import Outcome, Scored
from app.inference.serving.engine import Engine
from tests.support import make_bundle

THRESHOLD = 0.5
BATCH = torch.zeros(1, 1, 8, 8)


@pytest.fixture
def served(tmp_path: Path) -> ServedModel:
    store = ModelStore(tmp_path)
    store.publish(*make_bundle("a", version="20260101T000000Z-000001"))

    async def serve() -> ServedModel:
        engine = Engine(max_batch=1, queue_size=1, max_pixels=1)
        try:
            return await engine.serve(store.load("a", store.current("a")))
        finally:
            engine.close()

    return asyncio.run(serve())


def scored(score: float, *, mse: float = 0.1, p_value: float = 0.2, queue_s: float = 0, compute_s: float = 0) -> Scored:
    return Scored(BATCH, BATCH, 0, None, mse, score, p_value, (), queue_s, compute_s)


def test_scored_and_rejected_images_are_told_apart(served: ServedModel) -> None:
    outcomes: list[Outcome] = [
        scored(0.4, mse=0.01, p_value=0.9, queue_s=3, compute_s=1),
        UnreadableImage("no image"),
        scored(0.6, mse=0.02, p_value=0.1, queue_s=1, compute_s=2),
        scored(0.5, mse=0.03, p_value=0.3),
        scored(0.7, mse=0.04),
    ]
    told = account(served, THRESHOLD, outcomes)
    assert (told.model, told.version) == ("a", "20260101T000000Z-000001")
    assert told.calibration is served.bundle.calibration
    assert told.anomalies == 2
    assert (told.mses, told.scores, told.p_values) == (
        [0.01, 0.02, 0.03, 0.04],
        [0.4, 0.6, 0.5, 0.7],
        [0.9, 0.1, 0.3, 0.2],
    )
    assert told.rejected == ["unreadable-image"]
    assert (told.queue_s, told.compute_s) == (3, 2)


def test_a_request_with_no_scored_image(served: ServedModel) -> None:
    told = account(served, THRESHOLD, [UnreadableImage("no image")])
    assert (told.anomalies, told.scores, told.queue_s, told.compute_s) == (0, [], 0, 0)


@pytest.mark.parametrize(("score", "said"), [(0.4, "normal"), (THRESHOLD, "normal"), (0.6, "anomaly")])
def test_an_anomaly_lies_above_the_threshold(score: float, said: str) -> None:
    assert verdict(scored(score), THRESHOLD) == said
