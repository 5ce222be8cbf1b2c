"""Whether somebody still waits for the answer."""

from collections.abc import Callable
from types import TracebackType
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Scope

from app.api.http.cancellation import CancelScope

DISCONNECT_EXTENSION: Final = "anomaly.departure"
"""ASGI extension: a set of what is to be called when the client goes away. Waiting for ASGI's own message of that takes
a task for each request, as much as scoring a small image."""

DisconnectCallbacks = set[Callable[[], None]]


class cancelled_on_disconnect(CancelScope):  # noqa: N801  reads like asyncio.timeout
    """Cuts the body of a ``with`` off when the client goes away. Servers that do not tell have clients that stay.

    Raises:
        ClientDisconnect: it did.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._departure: DisconnectCallbacks = scope.get("extensions", {}).get(DISCONNECT_EXTENSION, set())

    def __enter__(self) -> None:
        """From here on."""
        super().__enter__()
        self._departure.add(self.cut)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Up to here."""
        self._departure.discard(self.cut)
        super().__exit__(kind, error, at)

    def error(self) -> Exception:
        """The client is gone."""
        return ClientDisconnect()
