"""What an operator's machine does to the processes of a service with several workers."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.attack.attack import Arena, Attack, Findings, Settings
from benchmarks.attack.kinds.labels import with_labels_and_workers
from benchmarks.attack.kinds.store_files import MODEL, scores
from benchmarks.attack.wire import get
from benchmarks.load.server_process import cpu_seconds, identified, kill_all, process_tree, still_running, workers_of
from benchmarks.reliability import OK

_END_S: Final = 30
_IDLE_S: Final = 0.1
_METRICS_FOLDER: Final = b"PROMETHEUS_MULTIPROC_DIR="


def _with_100_workers(_: Path) -> Settings:
    return {"workers": 100}


async def _until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds, or for a limited time."""
    until = time.monotonic() + _END_S
    while not condition() and time.monotonic() < until:  # noqa: ASYNC110  other processes set no event
        await asyncio.sleep(0.1)


async def _kill_master(arena: Arena) -> Findings:
    """SIGKILL to the process that started the workers."""
    findings = Findings()
    master, *others = process_tree(arena.target.process.pid)
    orphans = identified(others)
    os.kill(master, signal.SIGKILL)
    began = time.monotonic()
    await _until(lambda: not still_running(orphans))
    left = still_running(orphans)
    findings.require(not left, f"{len(left)} of {len(others)} processes still run {_END_S} s after their master's end")
    findings.notes.append(f"{time.monotonic() - began:.1f} s until they ended")
    kill_all(orphans)
    return findings


def _metrics_folder(pids: list[int]) -> Path | None:
    for pid in pids:
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if variable.startswith(_METRICS_FOLDER):
                return Path(os.fsdecode(variable.removeprefix(_METRICS_FOLDER)))
    return None


async def _remove_metrics(arena: Arena) -> Findings:
    """The shared metrics folder is removed, as programs that clean /tmp do; then a worker has to be replaced."""
    findings = Findings()
    workers = workers_of(arena.target.process.pid)
    folder = _metrics_folder(workers)
    if folder is None:
        return Findings(faults=["no worker names a metrics folder"])
    shutil.rmtree(folder)
    await asyncio.sleep(3)
    for _ in range(4):
        reply = await arena.target.ask(get(arena.target, "/metrics"))
        status = reply.status if reply else None
        findings.require(status == OK, f"/metrics answered {status}")
        findings.require(await scores(arena.target, MODEL, 10), "an image was not scored")
    os.kill(workers[-1], signal.SIGKILL)
    await _until(lambda: bool(_new_processes(arena, workers)))
    replacement = _new_processes(arena, workers)
    await _until(lambda: not still_running(replacement) or _is_idle(replacement))
    findings.require(bool(still_running(replacement)), "the worker that replaced a killed one ended at its start")
    return findings


def _new_processes(arena: Arena, former: list[int]) -> list[tuple[int, str | None]]:
    return identified(pid for pid in workers_of(arena.target.process.pid) if pid not in former)


def _is_idle(processes: list[tuple[int, str | None]]) -> bool:
    """Whether processes have computed for less than a tenth of the last second: they have started."""

    def seconds() -> float:
        return sum(cpu_seconds(pid) for pid, _ in processes)

    before = seconds()
    time.sleep(1)
    return seconds() - before < _IDLE_S


async def _wait(arena: Arena) -> Findings:
    await asyncio.sleep(arena.pick(10, 2))
    return Findings(notes=[f"{len(process_tree(arena.target.process.pid))} processes"])


ATTACKS: Final = (
    Attack("metrics-removed", _remove_metrics, with_labels_and_workers, ends_processes=True),
    Attack("kill-master", _kill_master, with_labels_and_workers, ends_processes=True),
    Attack("workers-100", _wait, _with_100_workers, may_be_refused="ANOMALY_WORKERS"),
)
