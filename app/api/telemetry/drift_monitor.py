"""Drift monitoring per model: compares the scores of images with those of the calibration images.

The request log passes scores on after responses are sent. Each model has one window, which holds one integer per image;
a thread compares full windows. The state is kept in a file if there is a folder for it: the configured one, or the one
that the workers of this service share.
"""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from app.api.request_state import ScoredRequest
from app.api.settings import SHARED_METRICS
from app.api.telemetry.drift_state import ComparedWindow, DriftState, StateFile
from app.api.telemetry.metrics import Metrics
from app.inference.decisions.drift_test import WINDOW, compare, critical_value

_WRITE_INTERVAL_S: Final = 2

_log = structlog.get_logger(__name__)


class _VersionMonitor:
    """Monitors one version of a model. The event loop changes ``ranks``, the drift thread everything else."""

    def __init__(self, state: DriftState) -> None:
        self.version = state.version
        self.ranks = list(state.ranks)
        self._state = state  # without the current ranks

    @property
    def since(self) -> datetime | None:
        return self._state.since

    def state(self) -> DriftState:
        return self._state.model_copy(update={"ranks": tuple(self.ranks)})

    def compare(self, ranks: Sequence[int]) -> ComparedWindow:
        """Compares a full window with the calibration scores. Blocking."""
        before, size = self._state, self._state.calibration_size
        statistic, higher = compare(ranks, size)
        window = ComparedWindow(
            at=datetime.now(UTC),
            changed=statistic >= critical_value(len(ranks), size),
            statistic=statistic,
            higher=higher,
            mean_p_value=1 - sum(ranks) / len(ranks) / (size + 1),
        )
        self._state = before.model_copy(
            update={
                "windows": before.windows + 1,
                "alarms": before.alarms + window.changed,
                "since": (before.since or window.at) if window.changed else None,
                "last": window,
            }
        )
        return window


class DriftMonitor:
    """Monitors all models of a process.

    Args:
        metrics: counts the compared windows.
        folder: for the state. None: the folder in which workers share their metrics, if there is one.
    """

    def __init__(self, metrics: Metrics, folder: Path | None) -> None:
        self._metrics = metrics
        shared = os.environ.get(SHARED_METRICS)
        self._folder = folder or (Path(shared) / "drift" if shared else None)
        self._file: StateFile | None = None
        self._monitors: dict[str, _VersionMonitor] = {}
        self._written: dict[str, DriftState] = {}
        self._thread = ThreadPoolExecutor(1, "drift")

    def open(self) -> None:
        """Restores the state. If the folder cannot be used, logs that and continues without it."""
        if self._folder is None:
            return
        try:
            self._file = StateFile(self._folder)
        except OSError as error:
            _log.error("drift state is not kept", folder=os.fspath(self._folder), reason=error.strerror)
            return
        self._written = self._file.read()
        for model, state in self._written.items():
            self._monitors[model] = _VersionMonitor(state)
            self._metrics.show_drift(model, changed=state.last is not None and state.last.changed)

    def add(self, scored: ScoredRequest) -> None:
        """Adds the scores of a request. Must run on the event loop."""
        monitor, calibration = self._monitors.get(scored.model), scored.calibration.independent
        if monitor is None or monitor.version != scored.version:  # ranks refer to the calibration of one version
            monitor = _VersionMonitor(DriftState(version=scored.version, calibration_size=len(calibration)))
            self._monitors[scored.model] = monitor
            self._metrics.show_drift(scored.model, changed=False)
        for score in scored.scores:
            monitor.ranks.append(calibration.rank(score))
            if len(monitor.ranks) == WINDOW:
                window, monitor.ranks = monitor.ranks, []
                asyncio.get_running_loop().run_in_executor(self._thread, self._compare, scored.model, monitor, window)

    async def states(self, model: str, version: str) -> list[DriftState]:
        """The state of each worker for a version. Those of other workers are the last written ones."""
        states = [{name: monitor.state() for name, monitor in self._monitors.items()}]
        if self._file is not None:
            states += await asyncio.to_thread(lambda file: list(file.others()), self._file)
        return [by_model[model] for by_model in states if model in by_model and by_model[model].version == version]

    async def write_periodically(self) -> None:
        """Writes changes every two seconds until cancelled."""
        while True:
            await asyncio.sleep(_WRITE_INTERVAL_S)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write)

    def close(self) -> None:
        """Finishes pending comparisons and writes the state."""
        self._thread.shutdown()
        self._write()
        if self._file is not None:
            self._file.release()

    def _compare(self, model: str, monitor: _VersionMonitor, ranks: Sequence[int]) -> None:
        window = monitor.compare(ranks)
        if self._monitors.get(model) is not monitor:
            return  # another version has replaced it
        self._metrics.count_window(model, changed=window.changed)
        if window.changed and monitor.since == window.at:
            _log.warning("the images have changed", model=model, version=monitor.version, window=WINDOW,
                         scores="higher" if window.higher else "lower")  # fmt: skip

    def _write(self) -> None:
        models = {name: monitor.state() for name, monitor in list(self._monitors.items())}
        if self._file is None or models == self._written:
            return
        try:
            self._file.write(models)
        except OSError as error:
            _log.error("drift state is not kept", folder=os.fspath(self._folder or ""), reason=error.strerror)
        self._written = models  # also after a failure, so that each change is logged once and not every two seconds
