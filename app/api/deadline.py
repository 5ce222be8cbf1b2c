"""How long a request may take, its upload included."""

import asyncio
from types import TracebackType

from app.api.errors import RequestTimedOut


class deadline:  # noqa: N801  reads like asyncio.timeout, which it wraps
    """Cuts the body of an ``async with`` off when the time is up.

    Raises:
        RequestTimedOut: it is.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        """The time begins to run."""
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It stops."""
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise RequestTimedOut(f"the request took longer than {self._seconds:g} s, upload included") from late
