"""Connections that say nothing, or too little, are closed; the rest of the wire is in fuzz."""

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


class Impatient(Protocol):
    head_timeout_s = 0.3


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once and never reads a body, unless the path asks for something else."""
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
        hello, port=0, http=Impatient, loop="uvloop", lifespan="off", log_config=None, timeout_keep_alive=1
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
    """What came back until the server hung up, and how long that took. After the pieces, drips of one byte."""
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


def test_silence_is_cut_off(port: int) -> None:
    received, seconds = talk(port)
    assert received == b""
    assert 0.2 < seconds < 2


@pytest.mark.parametrize("drips", [0, 20])
def test_a_head_that_does_not_end_is_cut_off(port: int, drips: int) -> None:
    received, seconds = talk(port, b"GET / HTTP/1.1\r\nX: ", pause_s=0.05, pauses=drips)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"content-type: application/problem+json" in head
    problem = Problem.model_validate_json(body)
    assert problem.instance.encode() in head
    assert seconds < 2


def test_so_is_the_second_one_of_a_connection(port: int) -> None:
    received, seconds = talk(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET ")
    assert received.count(b"hello") == 1
    assert b"HTTP/1.1 408 " in received
    assert seconds < 2


def test_a_body_that_nobody_reads_keeps_no_connection(port: int) -> None:
    """The keep-alive time runs from the answer on, whatever still drips in."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    received, seconds = talk(port, head, pause_s=0.2, pauses=10)
    assert received.count(b"hello") == 1
    assert seconds < 3.5


def test_a_quick_client_is_not_disturbed(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for _ in range(5):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(4096).endswith(b"hello")
            time.sleep(0.4)  # longer than a head may take, shorter than a connection is kept


def test_a_head_leaves_with_the_first_of_its_body(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET /slowly HTTP/1.1\r\nHost: x\r\n\r\n")
        first, second = connection.recv(4096), connection.recv(4096)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\nhe")
    assert second == b"llo"


def test_a_head_without_a_body_is_an_answer_to_head(port: int) -> None:
    request = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
    received, _ = talk(port, request + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert received.endswith(b"\r\n\r\n")


def test_a_head_whose_body_never_comes_is_sent_before_the_end(port: int) -> None:
    received, _ = talk(port, b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n")


def test_who_asks_before_sending_a_body_is_told_to_go_on_at_once(port: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert connection.recv(4096).endswith(b"\r\n\r\nhello")


def test_answers_to_requests_sent_at_once_stand_in_their_order(port: int) -> None:
    paths = (b"/slowly", b"/", b"/slowly", b"/")
    requests = b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths)
    received, _ = talk(port, requests)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == received.count(b"hello") == 4
