"""Python processes that need not read their libraries first.

Reading torch takes two seconds of a core, and the suite starts a hundred servers. Each of these is a process of its
own, forked from one that has read the libraries and nothing of this project; from there on it is ``python -m MODULE``.
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
    """``subprocess.Popen([sys.executable, "-m", module, *arguments], …)``, as far as the tests need it.

    Args:
        module: what it runs.
        arguments: its command line.
        env: all of its environment.
        log: where it writes, after what is there.
        counted: whether its lines count as covered; a server under load is slowed down by that.
    """

    def __init__(
        self, module: str, *arguments: str, cwd: Path, env: Mapping[str, str], log: Path, counted: bool = True
    ) -> None:
        self.log = log
        self._process = _context.Process(target=_become, args=(module, arguments, cwd, dict(env), log, counted))
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


def _become(module: str, arguments: tuple[str, ...], cwd: Path, env: dict[str, str], log: Path, counted: bool) -> None:
    if not counted and (counting := coverage.Coverage.current()):
        counting.stop()
    with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing's own is not passed on to further processes
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
