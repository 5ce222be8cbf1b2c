"""How long a request may take, its upload included."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.api.errors import RequestTimedOut


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Cuts its body off when the time is up.

    Raises:
        RequestTimedOut: it is.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RequestTimedOut(f"the request took longer than {seconds:g} s, upload included") from error
