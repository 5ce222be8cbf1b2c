"""Prometheus metrics, one registry per application.

With several workers each keeps its numbers in files of a folder they share, and whichever is asked sums them up
(prometheus_client's multiprocess mode, switched on by the variable that names the folder).
"""

import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from app.api.settings import SHARED_METRICS
from app.inference.decisions.drift_test import FALSE_ALARM_PROBABILITY, WINDOW
from app.inference.serving.batch_queue import CompletedBatch

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
            "anomaly_p_value", "Conformal p-values; uniform while images are normal", ["model"],
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
        self.queue_depth = Gauge(
            "anomaly_queue_depth", "Images in work", registry=register, multiprocess_mode="livesum"
        )
        self.model_info = Gauge(
            "anomaly_model_info", "1: the version serves; 0: it did", ["model", "version"],
            registry=register, multiprocess_mode="livemax",
        )  # fmt: skip
        self.refused_models = Gauge(
            "anomaly_model_refused", "1: its current version was refused; 0: it was, and is mended", ["model"],
            registry=register, multiprocess_mode="livemax",
        )  # fmt: skip
        self.drift_windows = Counter(
            "anomaly_drift_windows", f"Windows of {WINDOW} images compared with the calibration images", ["model"],
            registry=register,
        )  # fmt: skip
        self.drift_alarms = Counter(
            "anomaly_drift_alarms",
            f"Windows unlike the calibration images; while nothing changes one in {1 / FALSE_ALARM_PROBABILITY:.0f}",
            ["model"],
            registry=register,
        )
        self.drift_changed = Gauge(
            "anomaly_drift_changed", "1: the last window was unlike the calibration images; 0: it was not", ["model"],
            registry=register, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self.memory = Gauge(
            "process_resident_memory_bytes", "Resident memory size in bytes",
            registry=register, multiprocess_mode="livesum",
        )  # fmt: skip
        self.open_files = Gauge(
            "process_open_fds", "Number of open file descriptors", registry=register, multiprocess_mode="livesum"
        )
        self._process = ProcessCollector(registry=None)
        self._depth: Callable[[], int] = lambda: 0
        # Looking a metric up by its labels costs more than counting; the sets of labels are few.
        self._of_request = cache(
            lambda method, route, status: (
                self.requests.labels(method, route, status),
                self.latency.labels(route, status),
            )
        )
        self._of_model = cache(lambda model: (self.mse.labels(model), self.p_value.labels(model)))
        self._of_verdict = cache(self.images.labels)
        self._serving: set[tuple[str, str]] = set()
        self._refused: set[str] = set()

    def count_requests(self, method: str, route: str, status: int, seconds: Sequence[float]) -> None:
        """Requests of one sort, by the seconds that each took."""
        requests, latency = self._of_request(method, route, status)
        requests.inc(len(seconds))
        _observe(latency, seconds)

    def count_scored(self, model: str, anomalies: int, mses: Sequence[float], p_values: Sequence[float]) -> None:
        """Images that a model scored, so many of them anomalies."""
        of_mse, of_p_value = self._of_model(model)
        _observe(of_mse, mses)
        _observe(of_p_value, p_values)
        for verdict, images in (("anomaly", anomalies), ("normal", len(mses) - anomalies)):
            if images:
                self._of_verdict(model, verdict).inc(images)

    def count_batch(self, batch: CompletedBatch) -> None:
        """One forward pass."""
        self.batch_size.labels(batch.model).observe(batch.size)
        self.compute.labels(batch.model).observe(batch.compute_s)

    def count_window(self, model: str, *, changed: bool) -> None:
        """One window of images, compared with the calibration images."""
        self.drift_windows.labels(model).inc()
        self.drift_alarms.labels(model).inc(changed)
        self.drift_changed.labels(model).set(changed)

    def show_drift(self, model: str, *, changed: bool) -> None:
        """What is known of drift as a watch begins."""
        self.drift_windows.labels(model).inc(0)
        self.drift_alarms.labels(model).inc(0)
        self.drift_changed.labels(model).set(changed)

    def show_models(self, serving: set[tuple[str, str]], refused: set[str]) -> None:
        """Which version serves under which name, and whose newer version was refused."""
        for model, version in serving | self._serving:
            self.model_info.labels(model, version).set((model, version) in serving)
        for model in refused | self._refused:
            self.refused_models.labels(model).set(model in refused)
        self._serving, self._refused = serving, refused

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Reads the queue's depth whenever this process is measured."""
        self._depth = depth

    def measure_process(self) -> None:
        """Notes what this process has in work and takes of the machine."""
        self.queue_depth.set(self._depth())
        for metric in self._process.collect():
            if metric.name == "process_resident_memory_bytes":
                self.memory.set(metric.samples[0].value)
            elif metric.name == "process_open_fds":
                self.open_files.set(metric.samples[0].value)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes, of all workers together."""
        self.measure_process()
        folder = os.environ.get(SHARED_METRICS)
        if folder is None:
            return generate_latest(self.registry)
        _forget_the_dead(Path(folder))
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone, folder)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)


def _observe(histogram: Histogram, values: Sequence[float]) -> None:
    """As ``histogram.observe`` for each value, which takes four times as long.

    That the library offers no such thing is why its inner parts are used here; a test compares the two.
    """
    histogram._sum.inc(sum(values))
    for bucket, times in Tally(bisect_left(histogram._upper_bounds, value) for value in values).items():
        histogram._buckets[bucket].inc(times)


def _forget_the_dead(folder: Path) -> None:
    """A killed worker cannot take its own gauges away; what it has counted stays."""
    for worker in {file.stem.rpartition("_")[2] for file in folder.glob("gauge_live*.db")}:
        try:
            os.kill(int(worker), 0)
        except ProcessLookupError:
            mark_process_dead(int(worker), str(folder))  # type: ignore[no-untyped-call]
