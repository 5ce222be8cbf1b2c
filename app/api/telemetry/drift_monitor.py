"""Monitors drift per model: do scored images still look like the calibration images?

The request log feeds it after answers are sent: an image is one number in a list. A thread compares each full window;
memory is one window per model. The state is kept in a file where there is a folder for it: the configured one, or the
one that the workers of this service share.
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
from app.api.telemetry.drift_state import DriftState, JudgedWindow, StateFile
from app.api.telemetry.metrics import Metrics
from app.inference.decisions.drift_test import WINDOW, compare, critical_value

_WRITE_INTERVAL_S: Final = 2

_log = structlog.get_logger(__name__)


class _VersionMonitor:
    """One version of a model. The event loop owns the ranks, the comparing thread the rest."""

    def __init__(self, state: DriftState) -> None:
        self.version = state.version
        self.ranks = list(state.ranks)
        self._judged = state

    def state(self) -> DriftState:
        return self._judged.model_copy(update={"ranks": tuple(self.ranks)})

    def judge(self, ranks: Sequence[int]) -> DriftState:
        """Compares a full window. Blocks."""
        before, size = self._judged, self._judged.calibration_size
        statistic, higher = compare(ranks, size)
        changed, now = statistic >= critical_value(len(ranks), size), datetime.now(UTC)
        self._judged = before.model_copy(
            update={
                "windows": before.windows + 1,
                "alarms": before.alarms + changed,
                "since": (before.since or now) if changed else None,
                "last": JudgedWindow(
                    at=now,
                    changed=changed,
                    statistic=statistic,
                    higher=higher,
                    mean_p_value=1 - sum(ranks) / len(ranks) / (size + 1),
                ),
            }
        )
        return self._judged


class DriftMonitor:
    """All models of a process.

    Args:
        metrics: counts the windows.
        folder: for the state; None: the folder where several workers share their metrics, if any.
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
        """Restores the state. A folder that cannot be used is logged; the service runs without it."""
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
        """Adds the images of a request. Runs on the event loop."""
        monitor, calibration = self._monitors.get(scored.model), scored.calibration
        if monitor is None or monitor.version != scored.version:  # another calibration: earlier ranks do not count
            monitor = _VersionMonitor(DriftState(version=scored.version, calibration_size=len(calibration)))
            self._monitors[scored.model] = monitor
            self._metrics.show_drift(scored.model, changed=False)
        for score in scored.scores:
            monitor.ranks.append(calibration.rank(score))
            if len(monitor.ranks) == WINDOW:
                window, monitor.ranks = monitor.ranks, []
                asyncio.get_running_loop().run_in_executor(self._thread, self._judge, scored.model, monitor, window)

    async def states(self, model: str, version: str) -> list[DriftState]:
        """Each worker's state for a version: this worker's current one, the others' last written one."""
        states = [{name: monitor.state() for name, monitor in self._monitors.items()}]
        if self._file is not None:
            states += await asyncio.to_thread(lambda file: list(file.others()), self._file)
        return [of[model] for of in states if model in of and of[model].version == version]

    async def write_periodically(self) -> None:
        """Writes changes every two seconds, until cancelled."""
        while True:
            await asyncio.sleep(_WRITE_INTERVAL_S)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write)

    def close(self) -> None:
        """Compares full windows that still wait, and writes the state."""
        self._thread.shutdown()
        self._write()
        if self._file is not None:
            self._file.release()

    def _judge(self, model: str, monitor: _VersionMonitor, ranks: Sequence[int]) -> None:
        state = monitor.judge(ranks)
        assert state.last is not None  # noqa: S101  set by judge()
        if self._monitors.get(model) is not monitor:
            return  # replaced by another version meanwhile
        self._metrics.count_window(model, changed=state.last.changed)
        if state.last.changed and state.since == state.last.at:
            _log.warning("the images have changed", model=model, version=monitor.version, window=WINDOW,
                         scores="higher" if state.last.higher else "lower")  # fmt: skip

    def _write(self) -> None:
        models = {name: monitor.state() for name, monitor in list(self._monitors.items())}
        if self._file is None or models == self._written:
            return
        try:
            self._file.write(models)
        except OSError as error:
            _log.error("drift state is not kept", folder=os.fspath(self._folder or ""), reason=error.strerror)
        self._written = models  # also after a failure: one log line per change, not one every two seconds
