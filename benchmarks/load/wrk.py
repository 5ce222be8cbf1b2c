"""Load from wrk on a core of its own. Linux only, with ``wrk`` and ``taskset`` on the path."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import SERVER_CORE

LOAD_CORE: Final = 1

_WRK_TIMEOUT_S: Final = 10

# Appended to every script: the figures as JSON, with the number of wrong answers, which wrk's own report lacks.
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

# Counts answers that do not contain the MSE of one of the images. Some servers send the answer as a quoted string.
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
"""Relative tolerance; the rounding depends on the size of a batch."""


@dataclass(frozen=True)
class Load:
    """The figures of one run of wrk.

    Attributes:
        requests: number of answers, including wrong ones.
        requests_per_s: answers per second.
        p50_ms, p99_ms: latency.
        errors: answers other than 2xx, broken connections, timeouts, and answers that the script counted as ``wrong``.
    """

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def require_tools() -> None:
    """Checks that this machine can run the load.

    Raises:
        BenchmarkError: a program or the second core is missing.
    """
    missing = [tool for tool in ("wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        raise BenchmarkError(f"not on the path: {', '.join(missing)}; on Debian: apt-get install wrk util-linux")
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchmarkError(
            f"the server needs core {SERVER_CORE} and wrk core {LOAD_CORE}, but this process may not use both"
        )


def run_wrk(
    url: str, script: str, connections: int, seconds: float, *, core: int = LOAD_CORE, threads: int = 1
) -> Load:
    """Sends requests to a server over keep-alive connections.

    Args:
        url: scheme, host and port, and the path if the script has none.
        script: Lua for wrk: ``request``, and optionally ``response``, which counts wrong answers in a global ``wrong``.
        connections: number of connections.
        seconds: duration; rounded to whole seconds.
        core: the core that wrk runs on.
        threads: number of threads of wrk.

    Raises:
        BenchmarkError: wrk failed.
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
        raise BenchmarkError(f"wrk failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
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
    """Lua for :func:`run_wrk` that sends POST requests with the bodies to a path, in a loop."""
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
    """Lua for :func:`run_wrk` that counts answers as wrong if they do not contain the MSE of one of the images."""
    return _CHECK % (", ".join(map(repr, mses)), MSE_TOLERANCE)


def _lua_string(data: bytes) -> str:
    """Any bytes as a Lua literal, with a decimal escape for every byte."""
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'
