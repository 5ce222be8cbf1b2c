"""Limits and writes of HTTP connections. Malformed input is tested in tests/api/fuzz/test_wire.py."""

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.api.http.protocol import MAX_PIPELINED, Protocol
from app.api.schemas.scoring import Problem
from tests import process_memory


class ShortTimeoutProtocol(Protocol):
    head_timeout_s = 0.3
    read_timeout_s = 0.3


STARTED: list[str] = []
"""The paths of all requests that the application has seen."""


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds at once and does not read the body, unless the path requires otherwise."""
    STARTED.append(scope["path"])
    if scope["path"] == "/echo":
        await receive()
    if scope["path"] == "/sum":
        total, more = 0, True
        while more:
            message = await receive()
            total, more = total + sum(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"%05d" % (total % 100_000)})
        return
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})
        return
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


class TestPipelining:
    """What a client sends before it has its answers must not take memory, nor time of others."""

    def test_tiny_requests_that_are_never_read_take_no_memory(self, port: int) -> None:
        """They came to a gigabyte: a request of 30 bytes became a kilobyte of objects, before any answer."""
        request = b"GET /slowly HTTP/1.1\r\nHost: x\r\n\r\n"
        before, began = process_memory.resident_bytes(os.getpid()), len(STARTED)
        clients = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(20)]
        try:
            for client in clients:
                client.setblocking(False)
                sent = request * 14_000
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    while sent:
                        sent = sent[client.send(sent) :]
            time.sleep(0.2)
            assert process_memory.resident_bytes(os.getpid()) - before < 30 * 2**20
            assert len(STARTED) - began <= 20  # no answer is complete
        finally:
            for client in clients:
                client.close()

    def test_waiting_requests_are_dropped_with_their_client(self, port: int) -> None:
        began = len(STARTED)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /slowly HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
            connection.recv(4096)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        time.sleep(2)
        assert len(STARTED) - began <= 2

    def test_connection_is_closed_after_too_many_requests_ahead(self, port: int) -> None:
        received, _ = talk(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert received.count(b"hello") == MAX_PIPELINED + 1
        assert received.count(b"connection: close\r\n") == 1
        assert received.rpartition(b"HTTP/1.1 200 OK\r\n")[2].count(b"connection: close\r\n") == 1

    def test_requests_one_by_one_have_no_limit(self, port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            for _ in range(2 * MAX_PIPELINED):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(4096).endswith(b"hello")

    @pytest.mark.parametrize("size", [1, 7, 60, 200, 100_000])
    def test_pipelined_uploads_arrive_whole_in_pieces_of_any_size(self, port: int, size: int) -> None:
        body = b"HTTP/1.1 GET /1.1 " * 30
        request = b"POST /sum HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        chunked = b"POST /sum HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
            b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:1], body[1:400], body[400:])
        )
        sent = (request + chunked + b"0\r\n\r\n") * 3
        received, _ = talk(port, *(sent[at : at + size] for at in range(0, len(sent), size)))
        assert received.count(b"\r\n\r\n%05d" % (sum(body) % 100_000)) == 6

    def test_time_of_a_head_begins_after_the_answer_before_it(self, port: int) -> None:
        """The timer closed the connection while the answer was due, which then failed with a traceback."""
        began = b"GET /slowly HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(began)
            time.sleep(0.7)  # the answer takes 0.6 s, a head may take 0.3 s
            connection.sendall(b"TP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = b""
            while chunk := connection.recv(4096):
                received += chunk
        assert received.count(b"hello") == 2

    def test_slow_head_after_an_answer_is_408(self, port: int) -> None:
        received, seconds = talk(port, b"GET /slowly HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
        assert received.count(b"hello") == 1
        assert b"HTTP/1.1 408 " in received
        assert 0.8 < seconds < 2

    def test_malformed_request_is_refused_after_the_answer_before_it(self, port: int) -> None:
        received, _ = talk(port, b"GET /slowly HTTP/1.1\r\nHost: x\r\n\r\n\0\r\n\r\n")
        answer, _, refusal = received.partition(b"HTTP/1.1 400 ")
        assert answer.endswith(b"hello")
        assert b"application/problem+json" in refusal

    @pytest.mark.parametrize("version", [b"0.9", b"2.0"])
    def test_other_versions_of_http_are_refused(self, port: int, version: bytes) -> None:
        received, _ = talk(port, b"GET / HTTP/%b\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" % version * 3)
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.count(b"HTTP/1.1") == 1 + received.count(b"HTTP/1.1 request")


class TestSlowReaders:
    @pytest.mark.parametrize("headers", [b"", b"Connection: close\r\n"])
    def test_client_that_does_not_read_is_dropped(self, port: int, headers: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n%b\r\n" % headers)
            time.sleep(1)
            received = 0
            with contextlib.suppress(ConnectionError):
                while chunk := connection.recv(2**20):
                    received += len(chunk)
        assert received < 32 * 2**20

    def test_slow_client_that_reads_gets_everything(self, port: int) -> None:
        received = b""
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while chunk := connection.recv(2**20):
                received = received[-10:] + chunk
                time.sleep(0.005)
        assert received.endswith(b"3\r\nend\r\n0\r\n\r\n")
