"""Graceful shutdown without lost requests.

After SIGTERM or SIGINT the process is draining: readiness checks and new scoring requests get 503, but the server keeps
listening, so that load balancers can redirect traffic. After a delay, the server's own signal handler runs: it closes
the listening socket, finishes the accepted requests and exits. A process that has not exited by then is ended, whatever
its threads do: Python waits for them, and a thread that is in foreign code cannot be stopped.
"""

import asyncio
import faulthandler
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

LONGEST_S = 25  # after the delay; below the 30 s of common supervisors

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger(__name__)


@dataclass
class Draining:
    """The state of the shutdown.

    Attributes:
        begun: whether a signal has arrived.
    """

    begun: bool = False


@contextmanager
def draining_on_signals(draining: Draining, seconds: float) -> Iterator[None]:
    """Delays the server's signal handlers within a ``with`` block.

    Args:
        draining: set on the first signal.
        seconds: delay before the server's handler runs. A second signal ends the delay.
    """
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # embedded in another program: only its main thread can set handlers
        yield
        return
    loop = asyncio.get_running_loop()
    server_handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    # A signal that arrived while the server imported the application: it has noted that, and waits for the start.
    servers = {getattr(handler, "__self__", None) for handler in server_handlers.values()}
    draining.begun = any(getattr(server, "should_exit", False) for server in servers)

    def stop(number: int) -> None:
        handler = server_handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, None)

    def handle(number: int, _: object) -> None:
        if draining.begun:
            stop(number)
            return
        draining.begun = True
        faulthandler.dump_traceback_later(seconds + LONGEST_S, exit=True)  # says where threads are
        loop.call_soon_threadsafe(loop.call_later, seconds, stop, number)
        _log.info("draining", signal=signal.Signals(number).name, seconds=seconds)

    for number, handler in server_handlers.items():
        if callable(handler):
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in server_handlers.items():
            signal.signal(number, handler)
