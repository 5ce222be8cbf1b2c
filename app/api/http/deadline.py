"""How long a request may take, its upload included."""

import asyncio
from types import TracebackType

from app.api.errors import RequestTimedOut
from app.api.http.cancellation import CancelScope


class deadline(CancelScope):  # noqa: N801  reads like asyncio.timeout
    """Cuts the body of a ``with`` off when the time is up.

    Raises:
        RequestTimedOut: it is.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def __enter__(self) -> None:
        """The time begins to run."""
        super().__enter__()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self.cut)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """It stops."""
        self._timer.cancel()
        super().__exit__(kind, error, at)

    def error(self) -> Exception:
        """The time is up."""
        return RequestTimedOut(f"the request took longer than {self._seconds:g} s, upload included")
