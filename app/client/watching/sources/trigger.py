"""A tiny HTTP listener: each request takes a picture and is answered with its verdict."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import urlsplit

PATH: Final = "/trigger"

_MAX_BODY_BYTES: Final = 2**16
_IDLE_S: Final = 10.0  # until a client that sends nothing is hung up on
_LOOPBACK: Final = "127.0.0.1"


class NoVerdict(Exception):
    """There is no picture, or none with a verdict; the message gives the reason."""


@dataclass(frozen=True)
class Listening:
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses ``HOST:PORT``, ``[IPv6]:PORT``, ``:PORT`` or ``PORT``; without a host it is this machine only.

        Raises:
            ValueError: it is none of these.
        """
        try:
            parts = urlsplit(f"//{text}" if ":" in text else f"//:{text}")
            port = parts.port
        except ValueError:
            port = None
        if port is None or parts.path or parts.query or parts.username is not None:
            raise ValueError(f"{text!r} is not HOST:PORT")
        return cls(parts.hostname or _LOOPBACK, port)


@contextmanager
def listening(where: Listening, take: Callable[[], dict[str, Any]]) -> Iterator[int]:
    """Listens while the block runs; yields the port.

    Args:
        where: to listen.
        take: takes a picture and returns its entry, or raises ``NoVerdict``; called in a thread per request.

    Raises:
        OSError: the port is taken.
    """
    with _Server(where, take) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, where: Listening, take: Callable[[], dict[str, Any]]) -> None:
        self.address_family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        super().__init__((where.host, where.port), _Handler)
        self.take = take

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _IDLE_S
    server_version = "anomaly-watch"
    sys_version = ""

    def do_GET(self) -> None:
        if urlsplit(self.path).path != PATH:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is only {PATH}")
        elif "Origin" in self.headers or self.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            self._refuse(HTTPStatus.FORBIDDEN, "web pages may not take pictures")
        else:
            try:
                self._answer(HTTPStatus.OK, "application/json", self.server.take())
            except NoVerdict as error:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        self.rfile.read(min(int(length), _MAX_BODY_BYTES) if length.isdigit() else 0)  # else the answer might be lost
        self.do_GET()

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
        self._answer(status, "application/problem+json", problem)

    def _answer(self, status: HTTPStatus, media_type: str, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent: the journal has a line for each picture."""
