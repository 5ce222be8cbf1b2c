"""Prometheus metrics, one registry per application."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from app.inference.engine import BatchDone, Scored

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ERRORS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
_P_VALUES: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


# Creation times double the exposition and no dashboard of ours reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All the numbers the service keeps. Labels come from fixed sets: route templates, models in the store."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        register = self.registry
        self.requests = Counter(
            "anomaly_requests", "Requests answered", ["method", "route", "status"], registry=register
        )
        self.latency = Histogram(
            "anomaly_request_duration_seconds",
            "Time from a request's first byte to its answer's last",
            ["route", "status"],
            buckets=_LATENCY_S,
            registry=register,
        )
        self.images = Counter("anomaly_images", "Images scored", ["model", "verdict"], registry=register)
        self.rejected = Counter("anomaly_rejected", "Images and requests refused", ["reason"], registry=register)
        self.mse = Histogram("anomaly_mse", "Reconstruction MSE", ["model"], buckets=_ERRORS, registry=register)
        self.p_value = Histogram(
            "anomaly_p_value", "Conformal p-values; uniform while pictures are normal", ["model"],
            buckets=_P_VALUES, registry=register,
        )  # fmt: skip
        self.batch_size = Histogram(
            "anomaly_batch_size", "Images per forward pass", ["model"], buckets=_BATCHES, registry=register
        )
        self.compute = Histogram(
            "anomaly_forward_duration_seconds",
            "Time of a forward pass",
            ["model"],
            buckets=_LATENCY_S,
            registry=register,
        )
        self.queue_depth = Gauge("anomaly_queue_depth", "Images in work", registry=register)
        self.model_info = Gauge(
            "anomaly_model_info", "The version that serves", ["model", "version"], registry=register
        )
        self.refused_models = Gauge(
            "anomaly_model_refused", "1: its current version was refused", ["model"], registry=register
        )

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Reads the queue's depth whenever it is asked for."""
        self.queue_depth.set_function(depth)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request, when its answer is sent."""
        self.requests.labels(method, route, status).inc()
        self.latency.labels(route, status).observe(seconds)

    def count_batch(self, batch: BatchDone) -> None:
        """One forward pass."""
        self.batch_size.labels(batch.model).observe(batch.size)
        self.compute.labels(batch.model).observe(batch.compute_s)

    def count_scored(self, model: str, scored: Scored, verdict: str) -> None:
        """One image with its verdict."""
        self.images.labels(model, verdict).inc()
        self.mse.labels(model).observe(scored.row.mse)
        self.p_value.labels(model).observe(scored.p_value)

    def show_models(self, serving: dict[str, str], refused: list[str]) -> None:
        """Which version serves under which name, and whose newer version was refused."""
        self.model_info.clear()
        for model, version in serving.items():
            self.model_info.labels(model, version).set(1)
        self.refused_models.clear()
        for model in refused:
            self.refused_models.labels(model).set(1)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
