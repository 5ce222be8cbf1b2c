"""Cancels work for clients that have disconnected."""

from collections.abc import Callable
from types import TracebackType
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Scope

from app.api.http.cancellation import CancelScope

DISCONNECT_EXTENSION: Final = "anomaly.disconnect"
"""ASGI extension: a set of callbacks that run when the client disconnects. Waiting for ASGI's ``http.disconnect`` takes
a task per request, which costs as much as scoring a small image."""

DisconnectCallbacks = set[Callable[[], None]]


class cancelled_on_disconnect(CancelScope):  # noqa: N801  reads like asyncio.timeout
    """Cancels the body of a ``with`` block when the client disconnects. Has no effect without the extension.

    Raises:
        ClientDisconnect: the client has disconnected.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._callbacks: DisconnectCallbacks = scope.get("extensions", {}).get(DISCONNECT_EXTENSION, set())

    def __enter__(self) -> None:
        """Registers the callback."""
        super().__enter__()
        self._callbacks.add(self.cancel)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Removes the callback."""
        self._callbacks.discard(self.cancel)
        super().__exit__(kind, error, at)

    def error(self) -> Exception:
        """The error to raise."""
        return ClientDisconnect()
