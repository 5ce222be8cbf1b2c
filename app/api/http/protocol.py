"""HTTP connections: uvicorn's protocol with limits on the size and the duration of request heads.

Input that does not parse as HTTP does not reach the application. This module responds to it with a problem document,
where uvicorn would send plain text.
"""

import asyncio
import logging
import uuid
from typing import Any, ClassVar, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api import problems
from app.api.http.disconnect import DISCONNECT_EXTENSION, DisconnectCallbacks
from app.api.http.middleware import REQUEST_ID_HEADER
from app.api.problems import ProblemType

MAX_HEAD_BYTES: Final = 64 * 1024

_MALFORMED: Final = ProblemType("malformed-request", "Request is not HTTP", 400)
_SLOW_HEAD: Final = ProblemType("slow-request-head", "Request head took too long", 408)
_LARGE_HEAD: Final = ProblemType("request-head-too-large", "Request head too large", 431)

_CONTINUE: Final = b"HTTP/1.1 100 "
_NOT_FORWARDED: Final = {b"connection", b"upgrade", b"http2-settings"}

_log = logging.getLogger(__name__)


class HeadTooLarge(Exception):
    """The request line and the headers together exceed the limit."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    head_timeout_s: ClassVar[float] = 20
    """Time limit for a whole request head, from the start of the connection or from the head's first byte."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait for the first request head."""
        super().connection_made(transport)
        self._in_head = self._upgrading = False
        self._head_bytes = 0  # of an incomplete head, in the chunks after the one that it began in
        self._chunk = self._first_chunk = 0  # bytes of the current chunk, and of the chunk that the head began in
        self._head_since: float | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._on_disconnect: DisconnectCallbacks = set()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Runs the disconnect callbacks."""
        self._head_since = None
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)
        for callback in [*self._on_disconnect]:
            callback()

    def data_received(self, data: bytes) -> None:
        """Parses received bytes. Invalid input ends the connection with an error response."""
        self._head_bytes += len(data) if self._in_head else 0
        self._chunk = len(data)
        while data:
            data = self._parse(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_large_head()

    def _parse(self, data: bytes) -> bytes:
        """Parses bytes and returns those that must be parsed again, by a new parser."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, HeadTooLarge):
                self._refuse_large_head()
            else:
                self._refuse(_MALFORMED, "the data received is not a valid HTTP/1.1 request")
        return b""

    def on_message_begin(self) -> None:
        """Starts a head at its first byte."""
        # Not for every chunk, as in uvicorn: bytes of an unread body must not extend the keep-alive time.
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self._in_head, self._head_bytes, self._first_chunk = True, 0, self._chunk
        self._await_head()

    def on_headers_complete(self) -> None:
        """Passes a complete head to the application."""
        # The chunks of a head are an upper bound of its size, so the exact size is rarely needed.
        if self._first_chunk + self._head_bytes > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES:
            raise HeadTooLarge
        self._in_head, self._head_bytes = False, 0
        self._head_since = None
        self._upgrading = self.parser.should_upgrade()
        if not self._upgrading:
            super().on_headers_complete()
            self.cycle.scope["extensions"] = {DISCONNECT_EXTENSION: self._on_disconnect}  # type: ignore[dict-item]
            if self.cycle.scope["method"] != "HEAD":  # its response has no body
                self.cycle.transport = _CoalescingTransport(self.transport)

    def on_message_complete(self) -> None:
        """Passes the end of a body to the application."""
        if not self._upgrading:
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Aborts an idle connection. Closing it would wait for clients that do not read their responses."""
        self.transport.abort()

    def _decline_upgrade(self, rest: bytes) -> bytes:
        """Ignores an offered protocol upgrade (RFC 9110, section 7.8), since Java's client offers h2c by default.

        After such a head the parser expects the other protocol, so a new parser gets the head without the offer.
        """
        if self.parser.get_method() == b"CONNECT":
            self._refuse(_MALFORMED, "CONNECT is not supported: this server is not a proxy")
            return b""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        kept = b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] not in _NOT_FORWARDED)
        return b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self.url, version, kept, rest)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _await_head(self) -> None:
        """Starts the time limit. One timer serves many heads, because a timer per request would be expensive."""
        self._head_since = self.loop.time()
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._check_head_timeout)

    def _check_head_timeout(self) -> None:
        self._head_timer = None
        if self._head_since is None:
            return
        left = self._head_since + self.head_timeout_s - self.loop.time()
        if left > 0:
            self._head_timer = self.loop.call_later(left, self._check_head_timeout)
        elif self._in_head:
            self._refuse(_SLOW_HEAD, f"the request head was not complete after {self.head_timeout_s:g} s")
        else:
            self.transport.close()

    def _refuse_large_head(self) -> None:
        self._refuse(_LARGE_HEAD, f"the request line and headers have more than {MAX_HEAD_BYTES} bytes")

    def _refuse(self, problem: ProblemType, detail: str) -> None:
        """Sends an error response, unless another response has begun, and closes the connection."""
        if self.transport.is_closing():
            return
        request_id = uuid.uuid4().hex
        _log.warning("%s %s", problem.slug, request_id)
        idle = self.cycle is None or self.cycle.response_complete
        if idle or not (self._in_head or self.cycle.response_started):
            response = problems.document(request_id, problem, detail, headers={REQUEST_ID_HEADER: request_id})
            headers: list[Any] = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(response.body))
        self.transport.close()


class _CoalescingTransport(asyncio.Transport):
    """The transport of one response. It holds the response head back and writes it together with the first body bytes.

    uvicorn would write them separately: two system calls, two packets and two wake-ups of the client.
    """

    def __init__(self, connection: asyncio.Transport) -> None:
        super().__init__()
        self._connection = connection
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

    def is_closing(self) -> bool:
        """Whether the connection is closing."""
        return self._connection.is_closing()
