"""Limits and writes of HTTP connections. Malformed input is tested in tests/api/fuzz/test_wire.py."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.api.http.protocol import Protocol
from app.api.schemas import Problem


class ShortTimeoutProtocol(Protocol):
    head_timeout_s = 0.3


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds at once and does not read the body, unless the path requires otherwise."""
    if scope["path"] == "/echo":
        await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    if scope["path"] == "/slowly":
        await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": b"he", "more_body": True})
        await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": b"llo"})
    elif scope["path"] != "/broken":
        await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(
        hello, port=0, http=ShortTimeoutProtocol, loop="uvloop", lifespan="off", log_config=None, timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def talk(port: int, *pieces: bytes, pause_s: float = 0, pauses: int = 0) -> tuple[bytes, float]:
    """(bytes received until the server closed the connection, seconds). Sends single bytes after the pieces."""
    received = b""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for piece in pieces:
            connection.sendall(piece)
        for _ in range(pauses):
            time.sleep(pause_s)
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"x")
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(4096):
                received += chunk
    return received, time.perf_counter() - began


def test_silent_connection_is_closed(port: int) -> None:
    received, seconds = talk(port)
    assert received == b""
    assert 0.2 < seconds < 2


@pytest.mark.parametrize("single_bytes", [0, 20])
def test_incomplete_head_is_408(port: int, single_bytes: int) -> None:
    received, seconds = talk(port, b"GET / HTTP/1.1\r\nX: ", pause_s=0.05, pauses=single_bytes)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"content-type: application/problem+json" in head
    problem = Problem.model_validate_json(body)
    assert problem.instance.encode() in head
    assert seconds < 2


def test_incomplete_second_head_of_a_connection_is_408(port: int) -> None:
    received, seconds = talk(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET ")
    assert received.count(b"hello") == 1
    assert b"HTTP/1.1 408 " in received
    assert seconds < 2


def test_unread_body_does_not_keep_the_connection_open(port: int) -> None:
    """The keep-alive time starts at the response, even if more of the body arrives."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    received, seconds = talk(port, head, pause_s=0.2, pauses=10)
    assert received.count(b"hello") == 1
    assert seconds < 3.5


def test_connection_is_kept_between_requests(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for _ in range(5):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(4096).endswith(b"hello")
            time.sleep(0.4)  # longer than a head may take, shorter than a connection is kept


def test_response_head_is_written_with_the_first_body_bytes(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /slowly HTTP/1.1\r\nHost: x\r\n\r\n")
        first, second = connection.recv(4096), connection.recv(4096)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\nhe")
    assert second == b"llo"


def test_head_request_gets_a_response_without_a_body(port: int) -> None:
    request = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
    received, _ = talk(port, request + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert received.endswith(b"\r\n\r\n")


def test_response_head_without_a_body_is_sent_at_the_close(port: int) -> None:
    received, _ = talk(port, b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n")


def test_expect_100_continue_is_answered_at_once(port: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert connection.recv(4096).endswith(b"\r\n\r\nhello")


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    paths = (b"/slowly", b"/", b"/slowly", b"/")
    requests = b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths)
    received, _ = talk(port, requests)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == received.count(b"hello") == 4
