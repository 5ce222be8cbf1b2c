"""What speed benchmarks share: a server process pinned to one core, wrk on another, memory of a process tree.

Linux only, with ``wrk`` and ``taskset`` on the path.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SERVER_CORE: Final = 0
LOAD_CORE: Final = 1

_POLL_S: Final = 0.02
_STOP_S: Final = 15
_WRK_TIMEOUT_S: Final = 10

# Appended to every script: wrk's own report is for people, and says nothing of answers with a wrong content.
_REPORT: Final = """
local threads = {}
function setup(thread)
  threads[#threads + 1] = thread
end
function done(summary, latency, requests)
  local wrong = 0
  for _, thread in ipairs(threads) do
    wrong = wrong + (thread:get("wrong") or 0)
  end
  local failed = summary.errors
  io.write(string.format(
    '\\n@report {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, ' ..
    '"not_2xx": %d, "broken": %d, "wrong": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    failed.status, failed.connect + failed.read + failed.write + failed.timeout, wrong))
end
"""

# Counts answers that do not carry the MSE of one of the images. In some envelopes the answer is a quoted string.
_CHECK: Final = """
wrong = 0
local expected = {%s}
function response(status, headers, body)
  local mse = tonumber(string.match(body, 'mse\\\\?"%%s*:%%s*([%%d%%.eE+-]+)'))
  for _, value in ipairs(expected) do
    if mse and math.abs(mse - value) <= %g * value then
      return
    end
  end
  wrong = wrong + 1
end
"""

MSE_TOLERANCE: Final = 1e-5
"""Relative; a batch of another size rounds differently."""


class LoadError(Exception):
    """A server did not start, or the load could not be run; the text says which and why, on one line."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw.

    Attributes:
        requests: answered, wrong ones too.
        requests_per_s: the same by time.
        p50_ms, p99_ms: latency.
        errors: answers other than 2xx, broken connections, time-outs and what the script counted as ``wrong``.
    """

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True)
class Server:
    """A running server process.

    Attributes:
        pid: of the process that was started; it may have children.
        seconds_to_ready: from starting the process to its first good answer.
        log: what it wrote on standard output and standard error.
    """

    pid: int
    seconds_to_ready: float
    log: Path

    def cpu_seconds(self) -> float:
        """Processor time that the process and its descendants have used; hardly touched by what else runs."""
        return sum(map(_cpu_seconds, process_tree(self.pid)))

    def resident_bytes(self) -> int:
        """Memory of the process and all its descendants, what several of them share counted once.

        Pages of files are taken as those of the process that holds most of each mapping, so that the figure does
        not depend on who else on the machine has the same libraries loaded.
        """
        tree = process_tree(self.pid)
        pages_of_files: dict[str, int] = {}
        for pid in tree:
            for mapping, size in _file_mappings(pid):
                pages_of_files[mapping] = max(size, pages_of_files.get(mapping, 0))
        return sum(map(_anonymous_bytes, tree)) + sum(pages_of_files.values())


def require_tools() -> None:
    """Makes sure that a load can be run here.

    Raises:
        LoadError: a program or the second core is missing.
    """
    missing = [tool for tool in ("wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        raise LoadError(f"not on the path: {', '.join(missing)}; on Debian: apt-get install wrk util-linux")
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise LoadError(
            f"the server is pinned to core {SERVER_CORE} and wrk to core {LOAD_CORE}; this machine lacks one"
        )


def free_port() -> int:
    """A TCP port that nobody listens on."""
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
    core: int = SERVER_CORE,
    patience_s: float = 90,
) -> Iterator[Server]:
    """Starts a server on one core, waits until it answers, and stops it with all its children.

    Args:
        command: the program and its arguments.
        ready: asks the server for one good answer; False or an OSError means not yet.
        log: where its output goes.
        environment: variables on top of our own.
        folder: where it runs; default: here.
        core: the core that it and its children may use.
        patience_s: how long it may take until it is ready.

    Raises:
        LoadError: it ended or did not answer in time; the text ends with the last line of its log.
    """
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  callers pass fixed commands
            ["taskset", "--cpu-list", str(core), *command],  # noqa: S607
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
                raise LoadError(f"{command[0]} ended with status {process.returncode}: {_last_line(log)}")
            if time.perf_counter() - began > patience_s:
                raise LoadError(f"{command[0]} gave no good answer in {patience_s:g} s: {_last_line(log)}")
            time.sleep(_POLL_S)
        yield Server(process.pid, time.perf_counter() - began, log)
    finally:
        _stop(process)


def run_wrk(
    url: str, script: str, connections: int, seconds: float, *, core: int = LOAD_CORE, threads: int = 1
) -> Load:
    """Loads a server from another core over keep-alive connections.

    Args:
        url: scheme, host and port; also the path where the script names none.
        script: Lua for wrk: ``request`` and, to check answers, ``response`` that counts in a global ``wrong``.
        connections: kept open throughout.
        seconds: how long; wrk counts whole ones.
        core: the core that wrk runs on.
        threads: of wrk.

    Raises:
        LoadError: wrk failed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as file:
        file.write(script + _REPORT)
        file.flush()
        command = [
            "taskset", "--cpu-list", str(core),
            "wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s",
            "--timeout", f"{_WRK_TIMEOUT_S}s", "-s", file.name, url,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    report = done.stdout.rpartition("@report ")[2] if "@report " in done.stdout else ""
    if done.returncode or not report:
        raise LoadError(f"wrk failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    figures = json.loads(report)
    return Load(
        requests=figures["requests"],
        requests_per_s=figures["requests"] / figures["seconds"],
        p50_ms=figures["p50_ms"],
        p99_ms=figures["p99_ms"],
        errors=figures["not_2xx"] + figures["broken"] + figures["wrong"],
    )


def post_script(
    path: str, bodies: Sequence[bytes], content_type: str, *, headers: Mapping[str, str] | None = None
) -> str:
    """Lua for :func:`run_wrk` that posts the bodies to a path, one after the other, round and round."""
    sent = "".join(
        f"[{_lua_string(name.encode())}] = {_lua_string(value.encode())}, "
        for name, value in {"Content-Type": content_type, **(headers or {})}.items()
    )
    formatted = ", ".join(
        f'wrk.format("POST", {_lua_string(path.encode())}, headers, {_lua_string(body)})' for body in bodies
    )
    return f"""
local headers = {{{sent}}}
local requests
local next_one = 0
function init(arguments)
  requests = {{{formatted}}}
end
function request()
  next_one = next_one % #requests + 1
  return requests[next_one]
end
"""


def check_script(mses: Sequence[float]) -> str:
    """Lua for :func:`run_wrk` that counts answers without the MSE of one of the images as wrong."""
    return _CHECK % (", ".join(map(repr, mses)), MSE_TOLERANCE)


def process_tree(pid: int) -> list[int]:
    """A process and all its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything; the parent is the second field behind it.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    tree = [pid]
    for member in tree:  # grows while it is walked
        tree.extend(children.get(member, []))
    return tree


def _is_ready(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except OSError:
        return False


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _anonymous_bytes(pid: int) -> int:
    """Memory that belongs to no file; pages shared since a fork are split between their holders."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))


def _file_mappings(pid: int) -> Iterator[tuple[str, int]]:
    """(offset, device and inode, bytes in memory that are the file's) of each mapped file."""
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
    """Asks the first process to end, then ends whatever is left of its tree."""
    tree = [(pid, _started(pid)) for pid in process_tree(process.pid)]
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    while left := [pid for pid, started in tree if started and _started(pid) == started]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    process.wait()


def _started(pid: int) -> str | None:
    """When a process began, in clock ticks, which tells it from a later one of its number; None once it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else fields[18]


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it wrote nothing"


def _lua_string(data: bytes) -> str:
    """Any bytes as a Lua literal: decimal escapes alone, so that nothing needs quoting."""
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'
