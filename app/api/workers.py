"""The processes of a service with several workers: how many fit into memory, and that none outlives the service."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from app.api.settings import PREFIX, BadSettings

_WORKER_BYTES: Final = 300 * 10**6  # without any model or request, with the CPU build of torch

_log = structlog.get_logger(__name__)


def require_memory(workers: int, available: int) -> None:
    """Checks that the workers fit into the memory that the service may use, before any is started.

    Raises:
        BadSettings: they do not.
    """
    if workers > 1 and workers * _WORKER_BYTES > available:
        raise BadSettings(
            f"{PREFIX}WORKERS: {workers} workers take about {workers * _WORKER_BYTES / 1e9:.1f} GB, "
            f"and there are {available / 1e9:.1f} GB of memory: at most {max(1, available // _WORKER_BYTES)}"
        )


@contextmanager
def ending_with_the_service() -> Iterator[None]:
    """Within this block, a worker ends if the process that started it was killed. Others would serve on unsupervised,
    and keep the port. Must be entered on the event loop.
    """  # noqa: D205
    parent = multiprocessing.parent_process()
    if parent is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(parent.sentinel)
        _log.error("the process that started this worker has ended", parent=parent.pid)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(parent.sentinel, end)
    try:
        yield
    finally:
        loop.remove_reader(parent.sentinel)
