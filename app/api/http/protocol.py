"""HTTP on the wire: uvicorn's protocol, with a limit on request heads in bytes and in time, and no plain-text answers.

What does not parse as HTTP never reaches the application. It is answered here, with a problem document too.
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
    """Request line and headers together exceed the limit."""


class Protocol(HttpToolsProtocol):
    """One connection. uvicorn makes an instance for each."""

    head_timeout_s: ClassVar[float] = 20
    """For a whole request head, from the connection's start or from its own first byte."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come; its request's head is due."""
        super().connection_made(transport)
        self._in_head = self._upgrading = False
        self._head_bytes = 0  # of a head that is not complete yet
        self._chunk = self._first_chunk = 0  # bytes that are being parsed, and of those in which the head began
        self._head_since: float | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._departure: DisconnectCallbacks = set()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._head_since = None
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)
        for tell in [*self._departure]:
            tell()

    def data_received(self, data: bytes) -> None:
        """Parses what came; what cannot be parsed ends the connection with an answer."""
        self._head_bytes += len(data) if self._in_head else 0
        self._chunk = len(data)
        while data:
            data = self._parse(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_large_head()

    def _parse(self, data: bytes) -> bytes:
        """Returns what is to be parsed anew."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, HeadTooLarge):
                self._refuse_large_head()
            else:
                self._refuse(_MALFORMED, "what was sent does not parse as an HTTP/1.1 request")
        return b""

    def on_message_begin(self) -> None:
        """A request's first byte. What came before it, if anything, belonged to a body that nobody wanted to read."""
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self._in_head, self._head_bytes, self._first_chunk = True, 0, self._chunk
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is whole: the application takes over."""
        # A head is no larger than the chunks that it came in: nearly always that is enough to know.
        if self._first_chunk + self._head_bytes > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES:
            raise HeadTooLarge
        self._in_head, self._head_bytes = False, 0
        self._head_since = None
        self._upgrading = self.parser.should_upgrade()
        if not self._upgrading:
            super().on_headers_complete()
            self.cycle.scope["extensions"] = {DISCONNECT_EXTENSION: self._departure}  # type: ignore[dict-item]
            if self.cycle.scope["method"] != "HEAD":  # of its answer there is nothing but a head
                self.cycle.transport = _OneWrite(self.transport)

    def on_message_complete(self) -> None:
        """The body is whole."""
        if not self._upgrading:
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Hangs up on an idle client, also on one that does not read its answers: closing would wait for it."""
        self.transport.abort()

    def _decline_upgrade(self, rest: bytes) -> bytes:
        """The request as if it offered no other protocol (RFC 9110, 7.8): Java's client offers h2c by default.

        The parser takes what follows such a head for the other protocol; a fresh one reads the body.
        """
        if self.parser.get_method() == b"CONNECT":
            self._refuse(_MALFORMED, "CONNECT asks for a tunnel; this is no proxy")
            return b""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        kept = b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] not in _NOT_FORWARDED)
        return b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, self.url, version, kept, rest)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _await_head(self) -> None:
        """One timer for many heads: setting another for each request would be most of what this class costs."""
        self._head_since = self.loop.time()
        if self._watch is None:
            self._watch = self.loop.call_later(self.head_timeout_s, self._look_at_head)

    def _look_at_head(self) -> None:
        self._watch = None
        if self._head_since is None:
            return
        left = self._head_since + self.head_timeout_s - self.loop.time()
        if left > 0:
            self._watch = self.loop.call_later(left, self._look_at_head)
        elif self._in_head:
            self._refuse(_SLOW_HEAD, f"the request's head was not complete after {self.head_timeout_s:g} s")
        else:
            self.transport.close()

    def _refuse_large_head(self) -> None:
        self._refuse(_LARGE_HEAD, f"request line and headers have more than {MAX_HEAD_BYTES} bytes")

    def _refuse(self, kind: ProblemType, detail: str) -> None:
        """Answers, unless another answer is under way, and hangs up."""
        if self.transport.is_closing():
            return
        request_id = uuid.uuid4().hex
        _log.warning("%s %s", kind.slug, request_id)
        answered = self.cycle is None or self.cycle.response_complete
        if answered or not (self._in_head or self.cycle.response_started):
            answer = problems.document(request_id, kind, detail, headers={REQUEST_ID_HEADER: request_id})
            headers: list[Any] = [*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")]
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(STATUS_LINE[kind.status] + lines + b"\r\n" + bytes(answer.body))
        self.transport.close()


class _OneWrite(asyncio.Transport):
    """An answer's way to its connection: the head waits for what follows, and both leave in one write.

    uvicorn writes them one by one: two system calls, two packets, and a client that is woken up twice.
    """

    def __init__(self, connection: asyncio.Transport) -> None:
        super().__init__()
        self._connection = connection
        self._head: bytes | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends what it is given, unless that is the head."""
        if self._head is not None:
            self._connection.write(self._head + data)
            self._head = b""
        elif data[: len(_CONTINUE)] == _CONTINUE:
            self._connection.write(data)
        else:
            self._head = bytes(data)

    def close(self) -> None:
        """Sends a head that nothing follows, and hangs up."""
        if self._head:
            self._connection.write(self._head)
        self._connection.close()

    def is_closing(self) -> bool:
        """Whether the connection is."""
        return self._connection.is_closing()
