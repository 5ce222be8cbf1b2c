"""Python processes that start quickly, because their libraries are already imported.

Importing torch takes two seconds of CPU time, and the tests start a hundred servers. Each is forked from a process that
has imported the libraries but no module of this project, and then runs like ``python -m MODULE``.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import coverage

_LIBRARIES = [
    "torch",
    "fastapi",
    "httptools",
    "PIL.Image",
    "prometheus_client",
    "pydantic_settings",
    "structlog",
    "uvicorn",
]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_LIBRARIES)


class Process:
    """A replacement for ``subprocess.Popen([sys.executable, "-m", module, *arguments], …)``.

    Args:
        module: the module to run.
        arguments: its command line.
        cwd: its working directory.
        env: its complete environment.
        log: file to which standard output and standard error are appended.
        measure_coverage: whether to measure coverage, which slows a server under load down.
    """

    def __init__(
        self, module: str, *arguments: str, cwd: Path, env: Mapping[str, str], log: Path, measure_coverage: bool = True
    ) -> None:
        self.log = log
        self._process = _context.Process(
            target=_run_module, args=(module, arguments, cwd, dict(env), log, measure_coverage)
        )
        self._process.start()
        assert self._process.pid
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("python", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run_module(
    module: str, arguments: tuple[str, ...], cwd: Path, env: dict[str, str], log: Path, measure_coverage: bool
) -> None:
    if not measure_coverage and (current := coverage.Coverage.current()):
        current.stop()
    with log.open("ab") as output, Path(os.devnull).open("rb") as null:
        os.dup2(null.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.stdin = os.fdopen(0, closefd=False)  # child processes do not inherit the one of multiprocessing
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
