"""Python processes that start quickly, because the modules that they need are already imported.

Importing torch takes two seconds of CPU time, and the tests start a hundred servers. Each is forked from a process that
has imported the libraries and the modules of the service, and then runs like ``python -m MODULE``.
"""

import multiprocessing
import os
import posix
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import coverage

# Coverage of the lines that run when they are imported is measured in the processes of pytest, which import them, too.
_IMPORTED = ["app.api.application", "httptools", "uvicorn.protocols.http.httptools_impl", "uvloop"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(_IMPORTED)


class Process:
    """A replacement for ``subprocess.Popen([sys.executable, "-m", module, *arguments], …)``.

    Args:
        module: the module to run.
        arguments: its command line.
        cwd: its working directory.
        env: its complete environment.
        log: file to which standard output and standard error are appended.
        measure_coverage: whether to measure coverage, there and in the processes that it starts. It doubles the time
            of a start, and slows a server under load down.
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
    measured = coverage.Coverage.current()
    if measured and not measure_coverage:
        measured.stop()
        env = {name: value for name, value in env.items() if not name.startswith("COVERAGE_")}
    # Coverage patches it anew in each process, so that a grandchild would write the data of all its ancestors again.
    os._exit = posix._exit
    with log.open("ab") as output, Path(os.devnull).open("rb") as null:
        os.dup2(null.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.stdin = os.fdopen(0, closefd=False)  # child processes do not inherit the one of multiprocessing
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        if measured and measure_coverage:
            measured.save()
