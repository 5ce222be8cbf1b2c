"""How long a request may take, its upload included."""

import asyncio
from types import TracebackType

from app.api.errors import RequestTimedOut


class deadline:  # noqa: N801  reads like asyncio.timeout
    """Cuts the body of a ``with`` off when the time is up, as asyncio.timeout does, for less: every request pays it.

    Raises:
        RequestTimedOut: it is.
    """

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  it is made in a coroutine
        self._seconds = seconds
        self._task = task
        self._expired = False

    def __enter__(self) -> None:
        """The time begins to run."""
        self._cancelling = self._task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """It stops. A cancellation that came from elsewhere goes on."""
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise RequestTimedOut(f"the request took longer than {self._seconds:g} s, upload included") from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
