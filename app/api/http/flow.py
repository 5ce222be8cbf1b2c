"""How fast a connection is read and written: reading stops while requests wait, and clients must read their answers."""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl

_CONTINUE: Final = b"HTTP/1.1 100 "

MIN_READ_BYTES: Final = 64 * 1024
"""What a client must read of a waiting answer within each time limit, which for 20 s is 26 kbit/s."""


FLOW_EXTENSION: Final = "anomaly.flow"
"""ASGI extension: the flow control of the connection."""


async def wait_until_sent(scope: Scope) -> None:
    """Returns once most of a complete answer was read by the client, or the client has disconnected."""
    flow = scope.get("extensions", {}).get(FLOW_EXTENSION)
    if flow is not None and flow.write_paused:
        await flow.drain()


class ReadFlow(FlowControl):
    """Flow control with a second reason to stop reading: bytes that were received and not parsed yet."""

    holding = False

    def hold(self) -> None:
        """Stops reading until :meth:`release`, whoever asks for more."""
        self.holding = True
        self.pause_reading()

    def release(self) -> None:
        """Ends :meth:`hold`."""
        if self.holding:
            self.holding = False
            self.resume_reading()

    def resume_reading(self) -> None:
        """Continues to read, unless unparsed bytes wait."""
        if not self.holding:
            super().resume_reading()


class SlowReader:
    """Drops a client that does not read its answers: their bytes would stay in memory for as long as it likes.

    Args:
        transport: of the connection.
        seconds: within each such time the client must read ``MIN_READ_BYTES`` or all that is left.
    """

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0

    def watch(self) -> None:
        """Starts the time limit if bytes wait to be read and it does not run yet."""
        unread = self._transport.get_write_buffer_size()
        if unread and self._timer is None:
            self._start(unread)

    def stop(self) -> None:
        """Ends the time limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, unread: int) -> None:
        self._unread = unread
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        unread = self._transport.get_write_buffer_size()
        if unread > self._unread - MIN_READ_BYTES and unread:
            self._transport.abort()
        elif unread:
            self._start(unread)


class CoalescingTransport(asyncio.Transport):
    """The transport of one response. It holds the response head back and writes it together with the first body bytes.

    uvicorn would write them separately: two system calls, two packets and two wake-ups of the client.

    Args:
        connection: the transport of the connection.
        on_close: called after the connection was told to close, when unread bytes may be left.
    """

    def __init__(self, connection: asyncio.Transport, on_close: Callable[[], None]) -> None:
        super().__init__()
        self._connection = connection
        self._on_close = on_close
        self._head: bytes | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends the data, or holds it back if it is the response head."""
        if self._head is not None:
            self._connection.write(self._head + data)
            self._head = b""
        elif data[: len(_CONTINUE)] == _CONTINUE:
            self._connection.write(data)
        else:
            self._head = bytes(data)

    def close(self) -> None:
        """Sends a head that no body has followed, and closes the connection."""
        if self._head:
            self._connection.write(self._head)
        self._connection.close()
        self._on_close()

    def is_closing(self) -> bool:
        """Whether the connection is closing."""
        return self._connection.is_closing()
