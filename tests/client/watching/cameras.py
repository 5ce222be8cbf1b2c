"""Cameras that the tests start: snapshots and streams, with pictures that are as bright as their number."""

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Final, Protocol

from PIL import Image

from tests.support import encode

USER, PASSWORD = "viewer", "s3cret:pa/ss"
LOGIN = "viewer:s3cret%3Apa%2Fss@"
PART = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"

MIXED: Final = "multipart/x-mixed-replace"


class Out(Protocol):
    """A connection to a watcher."""

    def write(self, data: bytes, /) -> object: ...


Stream = Callable[[int, Out], None]


def jpeg(number: int) -> bytes:
    """A picture that is as bright as its number, from 0 to 255."""
    return encode(Image.new("L", (64, 64), number), "JPEG", quality=95)


def number(file: Path | bytes) -> int:
    """The number of a picture."""
    with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as image:
        level = image.convert("L").getpixel((32, 32))
    assert isinstance(level, int)
    return level


class CameraServer(ThreadingHTTPServer):
    """A camera. ``/picture`` answers as listed in ``answers``, then with ever new pictures; ``/stream`` sends a stream.

    An answer is the bytes of a body, a status, or None: never. With ``scheme`` it asks for user and password.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, port: int = 0, stream: Stream | None = None, media_type: str = MIXED) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers: list[bytes | int | str | None] = []
        self.scheme = ""
        self.logins: list[str | None] = []
        self.pictures: list[bytes] = []
        self.connections = 0
        self.stream = stream
        self.media_type = media_type
        self.ended = threading.Event()

    def url(self, path: str = "/picture", login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_port}{path}"

    def handle_error(self, *_: object) -> None:
        """A watcher that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: CameraServer

    def do_GET(self) -> None:
        login = self.headers["Authorization"]
        self.server.logins.append(login)
        if self.server.scheme and not self._is_right(login):
            self._send(401, b"")
        elif self.path == "/stream":
            self._stream()
        else:
            self._picture()

    def _picture(self) -> None:
        answer = self.server.answers.pop(0) if self.server.answers else jpeg(len(self.server.pictures))
        if answer is None:
            self.server.ended.wait()
        elif isinstance(answer, bytes):
            self.server.pictures.append(answer)
            self._send(200, answer)
        elif isinstance(answer, str):
            self._send(302, b"", answer)
        else:
            self._send(answer, b"")

    def _stream(self) -> None:
        assert self.server.stream is not None
        self.server.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", self.server.media_type + "; boundary=frame")
        self.end_headers()
        self.server.stream(self.server.connections, self.wfile)

    def _send(self, status: int, body: bytes, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        if status == 401:
            details = ', nonce="abc", qop="auth"' if self.server.scheme == "digest" else ""
            self.send_header("WWW-Authenticate", f'{self.server.scheme} realm="camera"{details}')
        self.end_headers()
        self.wfile.write(body)

    def _is_right(self, login: str | None) -> bool:
        if login is None:
            return False
        if self.server.scheme == "basic":
            return login == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', login))
        mine = _md5(f"{USER}:camera:{PASSWORD}"), _md5(f"GET:{self.path}")
        wanted = _md5(f"{mine[0]}:abc:{given['nc']}:{given['cnonce']}:auth:{mine[1]}")
        return (given["response"], given["username"]) == (wanted, USER)

    def log_message(self, *_: object) -> None:
        """Silent."""


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@contextmanager
def camera(port: int = 0, stream: Stream | None = None, media_type: str = MIXED) -> Iterator[CameraServer]:
    with CameraServer(port, stream, media_type) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()


def motion_jpeg(ended: threading.Event, first: int = 0, fps: float = 30) -> Stream:
    """A stream of pictures with ever greater numbers, from connection to connection, until it is ended."""
    numbers = iter(range(first, 256))

    def send(_: int, out: Out) -> None:
        for each in numbers:
            out.write(PART % (len(jpeg(each)), jpeg(each)))
            if ended.wait(1 / fps):
                return

    return send


@contextmanager
def tcp_server(serve: Callable[[Out], None]) -> Iterator[str]:
    """A server at an address ``tcp://…`` that sends what ``serve`` writes to each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=send, args=(connection,), daemon=True).start()

        def send(connection: socket.socket) -> None:
            with suppress(Exception), connection, connection.makefile("wb", buffering=0) as out:
                serve(out)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
