"""The request log buffers requests, then counts and logs each of them."""

import asyncio
from typing import Any

import pytest

from app.api.request_state import ScoredRequest, open_request_state
from app.api.telemetry import logging
from app.api.telemetry.metrics import Metrics
from app.api.telemetry.request_log import RequestLog
from app.inference.decisions.conformal import Calibration
from app.inference.serving.memory import Memory


def scored(model: str, *verdicts: str, rejected: tuple[str, ...] = ()) -> ScoredRequest:
    return ScoredRequest(
        model,
        "v1",
        Calibration([0.1, 0.2]),
        anomalies=verdicts.count("anomaly"),
        out_of_scope=0,
        mses=[0.01] * len(verdicts),
        scores=[0.1] * len(verdicts),
        p_values=[0.5] * len(verdicts),
        rejected=rejected,
        queue_s=0.001,
        compute_s=0.002,
    )


def scope(number: int, method: str = "POST", scored: ScoredRequest | None = None) -> dict[str, Any]:
    scope: dict[str, Any] = {"method": method, "raw_path": b"/score"}
    open_request_state(scope, f"r{number}", Memory(1).claim("a")).scored = scored
    return scope


def test_request_log_counts_and_logs_buffered_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Any] = []
    monkeypatch.setattr(logging, "write_events", lines.extend)
    metrics, notified = Metrics(), list[str]()
    request_log = RequestLog(metrics, lambda each: notified.append(each.model))

    async def scenario() -> None:
        request_log.add(scope(1, scored=scored("a", "normal", "anomaly")), 200, 0.002)
        request_log.add(scope(2, scored=scored("b", "normal")), 200, 0.002)
        request_log.add(scope(3, scored=scored("a", "anomaly", rejected=("unreadable-image",))), 200, 0.02)
        request_log.add(scope(4, method="BREW"), 405, 0.001)
        request_log.flush()
        request_log.flush()  # must not count anything twice

    asyncio.run(scenario())
    exposition = metrics.exposition().decode().splitlines()
    for line in (
        'anomaly_requests_total{method="POST",route="unmatched",status="200"} 3.0',
        'anomaly_requests_total{method="other",route="unmatched",status="405"} 1.0',
        'anomaly_request_duration_seconds_bucket{le="0.0025",route="unmatched",status="200"} 2.0',
        'anomaly_images_total{model="a",verdict="anomaly"} 2.0',
        'anomaly_images_total{model="a",verdict="normal"} 1.0',
        'anomaly_images_total{model="b",verdict="normal"} 1.0',
        'anomaly_mse_count{model="a"} 3.0',
        'anomaly_p_value_count{model="b"} 1.0',
        'anomaly_rejected_total{reason="unreadable-image"} 1.0',
    ):
        assert line in exposition
    assert notified == ["a", "b", "a"]
    assert [(line["request_id"], line.get("model"), line.get("anomaly"), line.get("rejected")) for line in lines] == [
        ("r1", "a", 1, 0),
        ("r2", "b", 0, 0),
        ("r3", "a", 1, 1),
        ("r4", None, None, None),
    ]
