"""The end of a process, in the order that loses no request.

On SIGTERM or SIGINT readiness turns 503 and new images are refused, while the server still listens: balancers
see it and look elsewhere. After a moment the server's own handler takes over: it closes its listener, answers
what it has accepted and ends.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger(__name__)


@dataclass
class Draining:
    """Whether the process has been told to end."""

    begun: bool = False


@contextmanager
def draining_on_signals(draining: Draining, seconds: float) -> Iterator[None]:
    """Stands before the server's signal handlers, for as long as the application runs.

    Args:
        draining: told when the first signal comes.
        seconds: how long the server goes on listening then; a second signal cuts it short.
    """
    if threading.current_thread() is not threading.main_thread():  # embedded elsewhere: signals are not ours
        yield
        return
    loop = asyncio.get_running_loop()
    servers = {each: signal.getsignal(each) for each in _SIGNALS}

    def stop(number: int) -> None:
        handler = servers[signal.Signals(number)]
        if callable(handler):
            handler(number, None)

    def handle(number: int, _: object) -> None:
        if draining.begun:
            stop(number)
            return
        draining.begun = True
        loop.call_soon_threadsafe(loop.call_later, seconds, stop, number)
        _log.info("draining", signal=signal.Signals(number).name, seconds=seconds)

    for each, handler in servers.items():
        if callable(handler):
            signal.signal(each, handle)
    try:
        yield
    finally:
        for each, handler in servers.items():
            signal.signal(each, handler)
