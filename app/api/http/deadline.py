"""The time limit of a request, upload included."""

import asyncio
from types import TracebackType

from app.api.errors import RequestTimedOut
from app.api.http.cancellation import CancelScope


class deadline(CancelScope):  # noqa: N801  reads like asyncio.timeout
    """Cancels the body of a ``with`` block after a number of seconds.

    Raises:
        RequestTimedOut: the time limit is exceeded.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def __enter__(self) -> None:
        """Starts the timer."""
        super().__enter__()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self.cancel)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stops the timer."""
        self._timer.cancel()
        super().__exit__(kind, error, at)

    def error(self) -> Exception:
        """The error to raise."""
        return RequestTimedOut(f"the request took longer than {self._seconds:g} s, upload included")
