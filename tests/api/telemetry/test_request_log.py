"""Requests that are told of together are counted and logged as each by itself."""

import asyncio
from typing import Any

import pytest

from app.api.telemetry import logging as logs
from app.api.telemetry.metrics import Metrics
from app.api.telemetry.request_log import RequestLog, Scoring
from app.inference.decisions.conformal import Calibration


def scoring(model: str, *verdicts: str, rejected: tuple[str, ...] = ()) -> Scoring:
    return Scoring(
        model,
        "v1",
        Calibration([0.1, 0.2]),
        anomalies=verdicts.count("anomaly"),
        mses=[0.01] * len(verdicts),
        scores=[0.1] * len(verdicts),
        p_values=[0.5] * len(verdicts),
        rejected=rejected,
        queue_s=0.001,
        compute_s=0.002,
    )


def scope(number: int, method: str = "POST", scored: Scoring | None = None) -> dict[str, Any]:
    state: dict[str, Any] = {"request_id": f"r{number}"}
    return {"method": method, "raw_path": b"/score", "state": state | ({"scoring": scored} if scored else {})}


def test_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Any] = []
    monkeypatch.setattr(logs, "tell", lines.extend)
    metrics, watched = Metrics(), list[str]()
    ledger = RequestLog(metrics, lambda each: watched.append(each.model))

    async def scenario() -> None:
        ledger.note(scope(1, scored=scoring("a", "normal", "anomaly")), 200, 0.002)
        ledger.note(scope(2, scored=scoring("b", "normal")), 200, 0.002)
        ledger.note(scope(3, scored=scoring("a", "anomaly", rejected=("unreadable-image",))), 200, 0.02)
        ledger.note(scope(4, method="BREW"), 405, 0.001)
        ledger.tell()
        ledger.tell()  # nothing is told twice

    asyncio.run(scenario())
    counted = metrics.exposition().decode().splitlines()
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
        assert line in counted
    assert watched == ["a", "b", "a"]
    assert [(line["request_id"], line.get("model"), line.get("anomaly"), line.get("rejected")) for line in lines] == [
        ("r1", "a", 1, 0),
        ("r2", "b", 0, 0),
        ("r3", "a", 1, 1),
        ("r4", None, None, None),
    ]
