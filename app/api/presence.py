"""Whether somebody still waits for the answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

_T = TypeVar("_T")


async def while_client_waits(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """The work's result, as long as the client stays.

    Args:
        receive: of a request whose body has been read to its end.
        work: cancelled when the client goes away.

    Raises:
        ClientDisconnect: it went away.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
