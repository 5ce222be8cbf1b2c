"""Counting of requests and images."""

import random

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from app.api.telemetry.metrics import Metrics, _observe


def test_bulk_observe_equals_single_observes() -> None:
    bounds = (0.001, 0.25, 0.5, 1)
    values = [0, 0.001, 0.0010001, 0.25, 1, 1.5, 30, *(random.Random(1).uniform(0, 1.2) for _ in range(200))]
    bulk, single = CollectorRegistry(), CollectorRegistry()
    _observe(Histogram("h", "h", buckets=bounds, registry=bulk), values)
    histogram = Histogram("h", "h", buckets=bounds, registry=single)
    for value in values:
        histogram.observe(value)
    assert generate_latest(bulk) == generate_latest(single)


def test_requests_and_images_are_counted_by_label() -> None:
    metrics = Metrics()
    metrics.count_requests("POST", "/score", 200, [0.002, 0.2])
    metrics.count_requests("POST", "/score", 422, [0.002])
    metrics.count_scored("parts", 2, 1, [0.001, 0.04, 0.002], [0.5, 0.004, 0.9])
    metrics.count_scored("digits", 0, 0, [0.01], [0.1])
    lines = metrics.exposition().decode().splitlines()
    for line in (
        'anomaly_requests_total{method="POST",route="/score",status="200"} 2.0',
        'anomaly_requests_total{method="POST",route="/score",status="422"} 1.0',
        'anomaly_request_duration_seconds_bucket{le="0.0025",route="/score",status="200"} 1.0',
        'anomaly_request_duration_seconds_count{route="/score",status="200"} 2.0',
        'anomaly_images_total{model="parts",verdict="normal"} 1.0',
        'anomaly_images_total{model="parts",verdict="anomaly"} 2.0',
        'anomaly_out_of_scope_total{model="parts"} 1.0',
        'anomaly_mse_count{model="parts"} 3.0',
        'anomaly_mse_bucket{le="0.001",model="parts"} 1.0',
        'anomaly_p_value_bucket{le="0.005",model="parts"} 1.0',
        'anomaly_images_total{model="digits",verdict="normal"} 1.0',
    ):
        assert line in lines
