"""The attacked service: a process tree under a memory limit, on one core. Linux only."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.errors import BenchmarkError
from benchmarks.load.clients import Connection, LostRequest, Reply, get
from benchmarks.load.server_process import cpu_seconds, free_port, identified, kill_all, process_tree
from benchmarks.reliability import OK, ROOT, Process

_SAMPLE_S: Final = 0.1
_SEARCH_S: Final = 0.5
_POLL_S: Final = 0.05
_START_S: Final = 120

Launch = Callable[[Mapping[str, str], Path, int], Process]
"""Starts ``python -m app``: (its complete environment, its log, its memory limit in bytes) → the process."""


class Memory:
    """The memory of a process tree, sampled in a thread. Beyond the limit, the largest process is killed.

    That is what a cgroup does. The memory is the proportional set size: pages that processes share count once.

    Attributes:
        peak_bytes: largest sum so far.
        killed: names of the processes that were killed.
        members: every process that was seen in the tree.
    """

    def __init__(self, pid: int, limit_bytes: int) -> None:
        self.peak_bytes = 0
        self.killed: list[str] = []
        self.members: set[tuple[int, str | None]] = set()
        self._pid = pid
        self._limit_bytes = limit_bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the sampling."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        tree, searched = [self._pid], 0.0
        while not self._ended.wait(_SAMPLE_S):
            if time.monotonic() - searched > _SEARCH_S:  # not every time: it looks at all processes of the machine
                tree, searched = process_tree(self._pid), time.monotonic()
                self.members.update(identified(tree))
            # The cheap figure counts shared pages several times, so it is an upper bound of the exact one.
            if sum(map(_resident_bytes, tree)) > self.peak_bytes:
                sizes = {pid: _proportional_bytes(pid) for pid in tree}
                self.peak_bytes = max(self.peak_bytes, sum(sizes.values()))
                if sum(sizes.values()) > self._limit_bytes:
                    self._kill(max(sizes, key=lambda pid: sizes[pid]))

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            self.killed.append(Path(f"/proc/{pid}/comm").read_text().strip())
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Target:
    """A running service.

    Attributes:
        process: the process that was started; it may have children.
        host: the address that it listens on.
        port: its port.
        memory: of its process tree.
        log: its output.
    """

    process: Process
    host: str
    port: int
    memory: Memory
    log: Path

    def cpu_seconds(self) -> float:
        """Processor time of all its processes, those that ended included."""
        return cpu_seconds(self.process.pid)

    def has_ended(self) -> bool:
        """Whether the process that was started has ended."""
        try:
            self.process.wait(0)
        except subprocess.TimeoutExpired:
            return False
        return True

    def connection(self) -> Connection:
        """A new connection."""
        return Connection(self.port, self.host)

    async def ask(self, request: bytes, patience_s: float = 30) -> Reply | None:
        """Sends a request on a new connection; None if no complete answer came in time."""
        connection = self.connection()
        try:
            return await asyncio.wait_for(connection.send(request), patience_s)
        except (OSError, LostRequest, TimeoutError):
            return None
        finally:
            connection.close()

    async def seconds_to_exit(self, patience_s: float) -> float:
        """Sends SIGTERM and waits for the end; ``inf`` if it does not end in time."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        while not self.has_ended():
            if time.monotonic() - began > patience_s:
                return float("inf")
            await asyncio.sleep(_POLL_S)
        return time.monotonic() - began


def limited_by_cgroup() -> bool:
    """Whether systemd can start a process in a cgroup of its own here; if not, :class:`Memory` enforces the limit."""
    if shutil.which("systemd-run") is None:
        return False
    done = subprocess.run([*_scope(2**30), "true"], capture_output=True, check=False, timeout=10)  # noqa: S603
    return done.returncode == 0


def launcher(core: int) -> Launch:
    """Starts the service on one core, in a cgroup of its own where that is possible."""
    scope = _scope if limited_by_cgroup() else _no_scope

    def launch(environment: Mapping[str, str], log: Path, limit_bytes: int) -> Process:
        command = [*scope(limit_bytes), "taskset", "--cpu-list", str(core), sys.executable, "-m", "app"]
        with log.open("wb") as output:
            return subprocess.Popen(  # noqa: S603  a fixed command
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    return launch


@contextlib.contextmanager
def target(launch: Launch, folder: Path, limit_bytes: int, settings: Mapping[str, Any]) -> Iterator[Target]:
    """Runs a service that is ready; at the end, every process that is left of it is killed.

    Args:
        launch: starts it.
        folder: for its log.
        limit_bytes: most memory of all its processes.
        settings: as in ``app.api.settings``; port and host have defaults.

    Raises:
        BenchmarkError: it ended or was not ready in time; the text has the last line of its log.
    """
    all_settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": free_port(),
        "max_memory": limit_bytes,
        "log_level": "error",
    }
    all_settings |= settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANOMALY_")}
    environment |= {f"ANOMALY_{name.upper()}": str(value) for name, value in all_settings.items()}
    process = launch(environment, folder / "log", limit_bytes)
    running = Target(
        process, str(all_settings["host"]), int(all_settings["port"]), Memory(process.pid, limit_bytes), folder / "log"
    )
    try:
        asyncio.run(_ready(running))
        yield running
    finally:
        running.memory.stop()
        kill_all([*running.memory.members, *identified(process_tree(process.pid))])
        process.wait(10)


async def _ready(running: Target) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if running.memory.killed:
            raise BenchmarkError("the service was killed at the memory limit while it started")
        if running.has_ended():
            raise BenchmarkError(f"the service ended at its start: {last_line(running.log)}")
        reply = await running.ask(get("/health/ready"), 5)
        if reply is not None and reply.status == OK:
            return
        await asyncio.sleep(_POLL_S)
    raise BenchmarkError(f"the service was not ready within {_START_S} s: {last_line(running.log)}")


def last_line(log: Path) -> str:
    """The last line of a log that has text."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "its log is empty"


def _scope(limit_bytes: int) -> list[str]:
    limits = ["-p", f"MemoryMax={limit_bytes}", "-p", "MemorySwapMax=0"]
    return ["systemd-run", "--scope", "--quiet", "--collect", "--no-ask-password", *limits, "--"]


def _no_scope(_: int) -> list[str]:
    return []


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # the process has ended
        return 0


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
