"""A server process on chosen cores, with its memory and processor time. Linux only, with ``taskset`` on the path."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError

SERVER_CORE: Final = 0

_POLL_S: Final = 0.02
_STOP_S: Final = 15


@dataclass(frozen=True)
class Server:
    """A running server process.

    Attributes:
        pid: of the process that was started; it may have children.
        seconds_to_ready: from the start of the process to its first correct answer.
        log: its standard output and standard error.
    """

    pid: int
    seconds_to_ready: float
    log: Path

    def cpu_seconds(self) -> float:
        """Processor time of the process and its descendants; it hardly depends on other programs that run."""
        return cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        """Memory of the process and its descendants; pages that several of them share count once.

        For each mapped file, the process with the most resident pages counts. The proportional set size would depend on
        which other programs on the machine have loaded the same libraries.
        """
        tree = process_tree(self.pid)
        file_bytes: dict[str, int] = {}
        for pid in tree:
            for mapping, size in _file_mappings(pid):
                file_bytes[mapping] = max(size, file_bytes.get(mapping, 0))
        return sum(map(_anonymous_bytes, tree)) + sum(file_bytes.values())


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def pinned_server(
    command: Sequence[str],
    ready: Callable[[], bool],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    cores: Collection[int] = (SERVER_CORE,),
    patience_s: float = 90,
) -> Iterator[Server]:
    """Starts a server on some cores, waits until it answers, and stops it with all its descendants at the end.

    Args:
        command: the program and its arguments.
        ready: sends a request; True if the answer is correct, False or an OSError if the server is not ready yet.
        log: file for its output.
        environment: variables in addition to those of this process.
        folder: its working directory; None: that of this process.
        cores: those that it and its descendants may use.
        patience_s: maximum time until it is ready.

    Raises:
        BenchmarkError: it ended or was not ready in time; the text ends with the last line of its log.
    """
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  callers pass fixed commands
            ["taskset", "--cpu-list", ",".join(map(str, cores)), *command],  # noqa: S607
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not _is_ready(ready):
            if process.poll() is not None:
                raise BenchmarkError(f"{command[0]} ended with status {process.returncode}: {_last_line(log)}")
            if time.perf_counter() - began > patience_s:
                raise BenchmarkError(f"{command[0]} gave no correct answer in {patience_s:g} s: {_last_line(log)}")
            time.sleep(_POLL_S)
        yield Server(process.pid, time.perf_counter() - began, log)
    finally:
        _stop(process)


def process_tree(pid: int) -> list[int]:
    """The ids of a process and of all its running descendants."""
    children = _children()
    tree = [pid]
    for member in tree:  # grows during the loop
        tree.extend(children.get(member, []))
    return tree


def workers_of(pid: int) -> list[int]:
    """The ids of the running workers that a server with several of them has started."""
    found = []
    for child in _children().get(pid, []):
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The parent is the second field after the name in parentheses, which may contain any characters.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    return children


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of all its descendants, those that ended included."""
    return sum(map(_cpu_seconds, process_tree(pid)))


def identified(pids: Iterable[int]) -> list[tuple[int, str | None]]:
    """Each process id with the start time of the process, so that a later one with the same id is not taken for it."""
    return [(pid, _start_time(pid)) for pid in pids]


def still_running(processes: Iterable[tuple[int, str | None]]) -> list[int]:
    """The ids of those processes, as :func:`identified` named them, that have not ended."""
    return [pid for pid, started in processes if started and _start_time(pid) == started]


def kill_all(processes: Sequence[tuple[int, str | None]]) -> None:
    """Kills processes, as :func:`identified` named them, and waits for their end."""
    while left := still_running(processes):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _is_ready(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except OSError:
        return False


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # the process has ended
        return 0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its own, and that of children it has waited for


def _anonymous_bytes(pid: int) -> int:
    """Memory that is not mapped from files. A page shared after a fork counts in equal parts for its processes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))


def _file_mappings(pid: int) -> Iterator[tuple[str, int]]:
    """(offset, device and inode; resident bytes that are unchanged from the file) of each mapped file."""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines()
    except OSError:
        return
    mapping, resident = "", 0
    for line in lines:
        name, *values = line.split()
        if not name.endswith(":"):  # 7f00-7f01 r-xp 00001000 fe:00 1234 /usr/lib/libc.so.6
            _, offset, device, inode = values[:4]
            mapping = f"{offset} {device} {inode}" if inode != "0" else ""
        elif name == "Rss:":
            resident = int(values[0])
        elif name == "Anonymous:" and mapping:
            yield mapping, (resident - int(values[0])) * 1024


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Sends SIGTERM to the process and waits, then kills all of its tree that still runs."""
    tree = identified(process_tree(process.pid))
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    kill_all(tree)
    process.wait()


def _start_time(pid: int) -> str | None:
    """The start time of a process in clock ticks; it differs for a later process with the same id. None if it ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else fields[18]


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "its log is empty"
