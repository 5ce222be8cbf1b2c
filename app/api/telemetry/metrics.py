"""Prometheus metrics, one registry per application.

Several workers write their metrics to files in a shared folder, and each of them exposes the sums. This is
prometheus_client's multiprocess mode, which is enabled by the environment variable that names the folder.
"""

import inspect
import os
from bisect import bisect_left
from collections import Counter as Frequencies
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
_MSES: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
_P_VALUES: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
_BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


# Creation times would double the exposition, and the dashboard does not use them.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """All metrics. Their label values are bounded: route templates, statuses, models in the store."""

    def __init__(self) -> None:
        folder = _create_folder()
        self._own_file = None if folder is None else os.fspath(folder / f"gauge_livesum_{os.getpid()}.db")
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("anomaly_requests", "Requests", ["method", "route", "status"], registry=registry)
        self.latency = Histogram(
            "anomaly_request_duration_seconds",
            "Time from the first byte of a request to the last byte of its response",
            ["route", "status"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.images = Counter("anomaly_images", "Images scored", ["model", "verdict"], registry=registry)
        self.out_of_scope = Counter(
            "anomaly_out_of_scope", "Images that do not look like the training images at all; they are anomalies too",
            ["model"], registry=registry,
        )  # fmt: skip
        self.rejected = Counter("anomaly_rejected", "Images rejected, by problem type", ["reason"], registry=registry)
        self.mse = Histogram("anomaly_mse", "Reconstruction MSE", ["model"], buckets=_MSES, registry=registry)
        self.p_value = Histogram(
            "anomaly_p_value", "Conformal p-values; uniformly distributed for normal images", ["model"],
            buckets=_P_VALUES, registry=registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "anomaly_batch_size", "Images per forward pass", ["model"], buckets=_BATCH_SIZES, registry=registry
        )
        self.compute = Histogram(
            "anomaly_forward_duration_seconds",
            "Duration of a forward pass",
            ["model"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "anomaly_queue_depth", "Images in progress", registry=registry, multiprocess_mode="livesum"
        )
        self.model_info = Gauge(
            "anomaly_model_info", "1 if the version is served, 0 if it was served before", ["model", "version"],
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.refused_models = Gauge(
            "anomaly_model_refused", "1 if the current version failed verification, 0 once resolved", ["model"],
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.drift_windows = Counter(
            "anomaly_drift_windows", f"Windows of {WINDOW} images compared with the calibration images", ["model"],
            registry=registry,
        )  # fmt: skip
        self.drift_alarms = Counter(
            "anomaly_drift_alarms",
            f"Windows that differ from the calibration images; one in {1 / FALSE_ALARM_PROBABILITY:.0f} by chance",
            ["model"],
            registry=registry,
        )
        self.drift_changed = Gauge(
            "anomaly_drift_changed", "1 if the last window differs from the calibration images, else 0", ["model"],
            registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self.memory = Gauge(
            "process_resident_memory_bytes", "Resident memory size in bytes",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.open_files = Gauge(
            "process_open_fds", "Number of open file descriptors", registry=registry, multiprocess_mode="livesum"
        )
        self._process = ProcessCollector(registry=None)
        self._measure_queue: Callable[[], int] = lambda: 0
        # Cached, since looking a metric up by its labels takes longer than counting.
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
        """Counts requests with the same labels, given the duration of each."""
        self._restore_files()
        requests, latency = self._of_request(method, route, status)
        requests.inc(len(seconds))
        _observe(latency, seconds)

    def count_scored(
        self, model: str, anomalies: int, out_of_scope: int, mses: Sequence[float], p_values: Sequence[float]
    ) -> None:
        """Counts images that a model scored, how many of them are anomalies, and how many of these are out of scope."""
        mse_histogram, p_value_histogram = self._of_model(model)
        _observe(mse_histogram, mses)
        _observe(p_value_histogram, p_values)
        for verdict, images in (("anomaly", anomalies), ("normal", len(mses) - anomalies)):
            if images:
                self._of_verdict(model, verdict).inc(images)
        if out_of_scope:
            self.out_of_scope.labels(model).inc(out_of_scope)

    def count_batch(self, batch: CompletedBatch) -> None:
        """Counts a forward pass."""
        self._restore_files()
        self.batch_size.labels(batch.model).observe(batch.size)
        self.compute.labels(batch.model).observe(batch.compute_s)

    def count_window(self, model: str, *, changed: bool) -> None:
        """Counts a compared window."""
        self.drift_windows.labels(model).inc()
        self.drift_alarms.labels(model).inc(changed)
        self.drift_changed.labels(model).set(changed)

    def show_drift(self, model: str, *, changed: bool) -> None:
        """Creates the drift metrics of a model, so that they exist before the first window."""
        self._restore_files()
        self.drift_windows.labels(model).inc(0)
        self.drift_alarms.labels(model).inc(0)
        self.drift_changed.labels(model).set(changed)

    def show_models(self, serving: set[tuple[str, str]], refused: set[str]) -> None:
        """Updates which versions are served and which models have a refused version."""
        self._restore_files()
        for model, version in serving | self._serving:
            self.model_info.labels(model, version).set((model, version) in serving)
        for model in refused | self._refused:
            self.refused_models.labels(model).set(model in refused)
        self._serving, self._refused = serving, refused

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Registers the function that returns the number of images in progress."""
        self._measure_queue = depth

    def measure_process(self) -> None:
        """Updates the queue depth, memory and open files of this process."""
        self._restore_files()
        self.queue_depth.set(self._measure_queue())
        for metric in self._process.collect():
            if metric.name == "process_resident_memory_bytes":
                self.memory.set(metric.samples[0].value)
            elif metric.name == "process_open_fds":
                self.open_files.set(metric.samples[0].value)

    def _restore_files(self) -> None:
        """If somebody has removed the folder or this process's files in it, starts with new ones, from zero.

        Uses private parts of the library, which starts new files only if the process has another number, after a fork.
        """
        if self._own_file is not None and not os.path.exists(self._own_file):  # noqa: PTH110  faster; for each batch
            _create_folder()
            check = type(self.queue_depth._value)._MmapedValue__check_for_pid_change
            inspect.getclosurevars(check).nonlocals["pid"]["value"] = None
            self.queue_depth.set(self._measure_queue())

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format, summed over all workers."""
        self.measure_process()
        folder = _create_folder()
        if folder is None:
            return generate_latest(self.registry)
        _remove_dead_workers(folder)
        all_workers = CollectorRegistry()
        MultiProcessCollector(all_workers, os.fspath(folder))  # type: ignore[no-untyped-call]
        return generate_latest(all_workers)


def _create_folder() -> Path | None:
    """The folder that workers share, which is created if it was removed; None without workers."""
    name = os.environ.get(SHARED_METRICS)
    if name is None:
        return None
    folder = Path(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _observe(histogram: Histogram, values: Sequence[float]) -> None:
    """Does the same as ``histogram.observe`` for each value in a quarter of the time.

    Uses private attributes, since the library has no bulk method. A test compares the two.
    """
    histogram._sum.inc(sum(values))
    for bucket, times in Frequencies(bisect_left(histogram._upper_bounds, value) for value in values).items():
        histogram._buckets[bucket].inc(times)


def _remove_dead_workers(folder: Path) -> None:
    """Removes the gauges of killed workers, but not their counters."""
    for worker in {file.stem.rpartition("_")[2] for file in folder.glob("gauge_live*.db")}:
        try:
            os.kill(int(worker), 0)
        except ProcessLookupError:
            mark_process_dead(int(worker), str(folder))  # type: ignore[no-untyped-call]
