"""HTTP connections: uvicorn's protocol with limits on request heads, pipelined requests and unread answers.

Requests that a client sends before it has its answer (pipelining: RFC 9112, section 9.3.2) are parsed when that answer
is complete. Until then their bytes wait, and the connection is not read.

Input that does not parse as HTTP does not reach the application. This module responds to it with a problem document,
where uvicorn would send plain text.
"""

import asyncio
import logging
import uuid
from typing import Any, ClassVar, Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api import problems
from app.api.http.connections import Connections
from app.api.http.disconnect import DISCONNECT_EXTENSION, DisconnectCallbacks
from app.api.http.flow import FLOW_EXTENSION, CoalescingTransport, ReadFlow, SlowReader
from app.api.http.middleware import REQUEST_ID_HEADER
from app.api.problems import ProblemType

MAX_HEAD_BYTES: Final = 64 * 1024

_MALFORMED: Final = ProblemType("malformed-request", "Request is not HTTP", 400)
_SLOW_HEAD: Final = ProblemType("slow-request-head", "Request head took too long", 408)
_LARGE_HEAD: Final = ProblemType("request-head-too-large", "Request head too large", 431)

# A request line contains this, in every version that is accepted. Nothing else can be told about bytes before they are
# parsed, and the parser does not stop between requests.
_VERSION: Final = b"/1."
_VERSIONS: Final = {"1.0", "1.1"}
_PIECE_BYTES: Final = 256  # parsed at once, and on to the next request line: twenty of the smallest requests
_SEARCHED_BYTES: Final = 4096  # for a request line; nearly all heads are shorter
MAX_PIPELINED: Final = 128
"""Requests that a connection may send ahead without a pause. It is then closed, after its last answer."""

_NOT_FORWARDED: Final = {b"connection", b"upgrade", b"http2-settings"}

_log = logging.getLogger(__name__)


class HeadTooLarge(Exception):
    """The request line and the headers together exceed the limit."""


class UnknownVersion(Exception):
    """The request has neither version 1.0 nor 1.1 of HTTP."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    head_timeout_s: ClassVar[float] = 20
    """Time limit for a whole request head, from the start of the connection, from the head's first byte, or from the
    end of the answer before it."""

    read_timeout_s: ClassVar[float] = 20
    """Time limit for the client to read a part of a waiting answer."""

    open_connections: ClassVar[Connections] = Connections()
    """All of this process."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait for the first request head."""
        super().connection_made(transport)
        self.flow: ReadFlow = ReadFlow(transport)
        self._reader = SlowReader(transport, self.read_timeout_s)
        self._in_head = self._upgrading = False
        self._head_bytes = 0  # of an incomplete head, in the pieces after the one that it began in
        self._piece = self._first_piece = 0  # bytes of the current piece, and of the piece that the head began in
        self._head_since: float | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._on_disconnect: DisconnectCallbacks = set()
        self._answering: RequestResponseCycle | None = None  # the oldest request without a complete answer
        self._unparsed = b""
        self._body_left = 0  # bytes of the current body, as far as its head says
        self._sent_ahead = 0  # requests since the connection last had nothing to do
        self._refusal: tuple[ProblemType, str] | None = None  # to be sent after the answers that are due
        self._await_head()
        self.open_connections.opened(self)

    def abort(self) -> None:
        """Closes the connection at once."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the work for this client: marks its request as disconnected and drops those that wait."""
        self.open_connections.closed(self)
        self._head_since = None
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._reader.stop()
        self._unparsed = b""
        self.pipeline.clear()
        if self._answering is not None:  # uvicorn marks the newest request only
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)
        for callback in [*self._on_disconnect]:
            callback()

    def data_received(self, data: bytes) -> None:
        """Parses received bytes while no answer is due. Invalid input ends the connection with an error response."""
        if not self._answering and not self._unparsed:
            self._sent_ahead = 0
        self._unparsed = self._unparsed + data if self._unparsed else data
        self._parse_requests()

    def _parse_requests(self) -> None:
        """Parses the bytes received in pieces, each of which contains few requests, until an answer is due."""
        data, at = self._unparsed, 0
        while at < len(data) and not (self._is_due() or self._ended()):
            # Within a body, whose head says how long it is, no request begins; a search takes as long as receiving it.
            end = len(data)
            if end - at > self._body_left:
                line = data.find(_VERSION, at + _PIECE_BYTES, at + _SEARCHED_BYTES)
                end = min(end, at + _SEARCHED_BYTES) if line < 0 else line + len(_VERSION)
            self._parse_piece(data[at:end] if at or end < len(data) else data)
            at = end
        if at < len(data) and not self._ended():
            self._unparsed = data[at:]
            self.flow.hold()
        else:
            self._unparsed = b""
            self.flow.release()

    def _ended(self) -> bool:
        """Whether no further request of this connection is read."""
        return self._refusal is not None or self.transport.is_closing()

    def _is_due(self) -> bool:
        """Whether a request is complete and its answer is not."""
        answering = self._answering
        return answering is not None and (answering is not self.cycle or not answering.more_body)

    def _parse_piece(self, data: bytes) -> None:
        self._head_bytes += len(data) if self._in_head else 0
        self._piece = len(data)
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
        self._in_head, self._head_bytes, self._first_piece = True, 0, self._piece
        if self._answering is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Passes a complete head to the application."""
        # The pieces of a head are an upper bound of its size, so the exact size is rarely needed.
        if self._first_piece + self._head_bytes > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES:
            raise HeadTooLarge
        if self.parser.get_http_version() not in _VERSIONS:
            raise UnknownVersion
        self._in_head, self._head_bytes = False, 0
        self._head_since = None
        self._body_left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        self._upgrading = self.parser.should_upgrade()
        if not self._upgrading:
            super().on_headers_complete()
            extensions = {DISCONNECT_EXTENSION: self._on_disconnect, FLOW_EXTENSION: self.flow}
            self.cycle.scope["extensions"] = extensions  # type: ignore[typeddict-item]
            self._sent_ahead += 1
            if self._sent_ahead > MAX_PIPELINED:
                self.cycle.keep_alive = False  # uvicorn closes the connection after the answer
            if self.cycle.scope["method"] != "HEAD":  # its response has no body
                self.cycle.transport = CoalescingTransport(self.transport, self._reader.watch)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        self.open_connections.works(self)
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Passes a part of a body to the application."""
        self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Passes the end of a body to the application."""
        self._body_left = 0
        if not self._upgrading:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Starts the next request, or waits for its head."""
        if self._answering is not None:
            self._answering.body = bytearray()  # of a request that was answered unread
        self._answering = None
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._refusal is not None and self._answering is None:
            self._refuse(*self._refusal)
            return
        if self._unparsed:
            self._parse_requests()
        if self._answering is not None:
            return
        self.open_connections.waits(self)
        if self._in_head:
            self._unset_keepalive_if_required()
            self._await_head()

    def pause_writing(self) -> None:
        """Starts the time limit for the client to read."""
        super().pause_writing()
        self._reader.watch()

    def resume_writing(self) -> None:
        """Ends it."""
        self._reader.stop()
        super().resume_writing()

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
        """Sends an error response after the answers that are due, and closes the connection.

        It takes the place of the answer to a request whose body is not valid, unless that answer has begun.
        """
        if self.transport.is_closing():
            return
        if self._is_due():
            self._refusal = self._refusal or (problem, detail)
            return
        request_id = uuid.uuid4().hex
        _log.warning("%s %s", problem.slug, request_id)
        if self._answering is None or not (self._in_head or self._answering.response_started):
            response = problems.document(request_id, problem, detail, headers={REQUEST_ID_HEADER: request_id})
            headers: list[Any] = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(response.body))
        self.transport.close()
        self._reader.watch()
