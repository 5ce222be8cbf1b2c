"""Blocking calls of the model store, each in a thread of its own and with a deadline.

A file system over a network can stop answering, and a thread that waits for it cannot be ended. The threads are daemon
threads, so neither requests nor the end of the process wait for them, and their number is limited.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from app.inference.errors import ModelUnavailable

STORE_TIMEOUT_S: Final = 10.0
"""The most seconds that reading manifests and other small files may take."""

_AT_ONCE: Final = 8

_T = TypeVar("_T")


class StoreAccess:
    """Calls the store from the event loop.

    Args:
        seconds: the deadline of a call, from when it is made.
        what: names the calls in the error.
    """

    def __init__(self, seconds: float, what: str = "the model store did not answer") -> None:
        self._seconds = seconds
        self._what = what
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def run(self, work: Callable[[], _T]) -> _T:
        """The result of blocking work, or its exception.

        Raises:
            ModelUnavailable: it was not done by the deadline. Its thread continues, and occupies its place.
        """
        result: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._seconds):
                await self._slots.acquire()
                threading.Thread(target=self._work, args=(work, result), name="store", daemon=True).start()
                return await result
        except TimeoutError as error:
            raise ModelUnavailable(f"{self._what} within {self._seconds:g} s") from error

    def _work(self, work: Callable[[], _T], result: "asyncio.Future[_T]") -> None:
        try:
            report: Callable[[], None] = partial(result.set_result, work())
        except BaseException as error:  # it is raised where the result is awaited
            report = partial(result.set_exception, error)
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            result.get_loop().call_soon_threadsafe(self._finish, result, report)

    def _finish(self, result: "asyncio.Future[_T]", report: Callable[[], None]) -> None:
        self._slots.release()
        if not result.done():
            report()
