"""Ctrl-C during imports, when libraries such as numpy would fail with long tracebacks."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Within the block, Ctrl-C ends the process immediately, with one line on standard error and status 130."""
    before = signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(*_: object) -> NoReturn:
    os.write(2, b"stopped; nothing was published\n")
    os._exit(130)
