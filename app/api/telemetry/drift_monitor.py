"""Watches, per model, whether the images that are scored still look like the calibration images.

Fed by the ledger, off the path that scores: an image is one number in a list. A full window goes to a thread that
compares it; memory is a window per model. What is known is kept in a file, if there is a folder for it: the one that
the settings name, or the one that the workers of this service share.
"""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from app.api.settings import SHARED_METRICS
from app.api.telemetry.drift_state import Judged, Slot, State
from app.api.telemetry.metrics import Metrics
from app.api.telemetry.request_log import Scoring
from app.inference.decisions.drift_test import WINDOW, compare, limit

_KEEP_S: Final = 2

_log = structlog.get_logger(__name__)


class _Watch:
    """One version of a model. Its ranks belong to the event loop, the rest to the thread that judges."""

    def __init__(self, state: State) -> None:
        self.version = state.version
        self.ranks = list(state.ranks)
        self._judged = state

    def state(self) -> State:
        return self._judged.model_copy(update={"ranks": tuple(self.ranks)})

    def judge(self, ranks: Sequence[int]) -> State:
        """Compares a full window. Blocks."""
        before, size = self._judged, self._judged.calibration_size
        statistic, higher = compare(ranks, size)
        changed, now = statistic >= limit(len(ranks), size), datetime.now(UTC)
        self._judged = before.model_copy(
            update={
                "windows": before.windows + 1,
                "alarms": before.alarms + changed,
                "since": (before.since or now) if changed else None,
                "last": Judged(
                    at=now,
                    changed=changed,
                    statistic=statistic,
                    higher=higher,
                    mean_p_value=1 - sum(ranks) / len(ranks) / (size + 1),
                ),
            }
        )
        return self._judged


class Drift:
    """The watches of all models.

    Args:
        metrics: told of every window.
        folder: where to keep what is known; None: where the workers share their metrics, if there are several.
    """

    def __init__(self, metrics: Metrics, folder: Path | None) -> None:
        self._metrics = metrics
        shared = os.environ.get(SHARED_METRICS)
        self._folder = folder or (Path(shared) / "drift" if shared else None)
        self._slot: Slot | None = None
        self._watches: dict[str, _Watch] = {}
        self._kept: dict[str, State] = {}
        self._thread = ThreadPoolExecutor(1, "drift")

    def open(self) -> None:
        """Goes on with what was kept. A folder that cannot be used is told of; the service runs without it."""
        if self._folder is None:
            return
        try:
            self._slot = Slot(self._folder)
        except OSError as error:
            _log.error("drift state is not kept", folder=os.fspath(self._folder), reason=error.strerror)
            return
        self._kept = self._slot.read()
        for model, state in self._kept.items():
            self._watches[model] = _Watch(state)
            self._metrics.show_drift(model, changed=state.last is not None and state.last.changed)

    def note(self, scoring: Scoring) -> None:
        """Takes the images of a request in. On the event loop."""
        watch, calibration = self._watches.get(scoring.model), scoring.calibration
        if watch is None or watch.version != scoring.version:  # another calibration: nothing of before counts
            watch = _Watch(State(version=scoring.version, calibration_size=len(calibration)))
            self._watches[scoring.model] = watch
            self._metrics.show_drift(scoring.model, changed=False)
        for score in scoring.scores:
            watch.ranks.append(calibration.rank(score))
            if len(watch.ranks) == WINDOW:
                window, watch.ranks = watch.ranks, []
                asyncio.get_running_loop().run_in_executor(self._thread, self._judge, scoring.model, watch, window)

    async def states(self, model: str, version: str) -> list[State]:
        """What each worker has seen of a version, this one as it is now, the others as of a moment ago."""
        everyone = [{name: watch.state() for name, watch in self._watches.items()}]
        if self._slot is not None:
            everyone += await asyncio.to_thread(lambda slot: list(slot.others()), self._slot)
        return [of[model] for of in everyone if model in of and of[model].version == version]

    async def keep(self) -> None:
        """Writes what has changed every other second, until cancelled."""
        while True:
            await asyncio.sleep(_KEEP_S)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write)

    def close(self) -> None:
        """Judges what waits, and writes for the last time."""
        self._thread.shutdown()
        self._write()
        if self._slot is not None:
            self._slot.release()

    def _judge(self, model: str, watch: _Watch, ranks: Sequence[int]) -> None:
        state = watch.judge(ranks)
        assert state.last is not None  # noqa: S101  it has just been judged
        if self._watches.get(model) is not watch:
            return  # another version has come meanwhile
        self._metrics.count_window(model, changed=state.last.changed)
        if state.last.changed and state.since == state.last.at:
            _log.warning("the images have changed", model=model, version=watch.version, window=WINDOW,
                         scores="higher" if state.last.higher else "lower")  # fmt: skip

    def _write(self) -> None:
        models = {name: watch.state() for name, watch in list(self._watches.items())}
        if self._slot is None or models == self._kept:
            return
        try:
            self._slot.write(models)
        except OSError as error:
            _log.error("drift state is not kept", folder=os.fspath(self._folder or ""), reason=error.strerror)
        self._kept = models  # also after a failure: one line for each change, not one every other second
