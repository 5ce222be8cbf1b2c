"""Untrusted bytes on the connection."""

import io
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Self, cast

import pytest
from hypothesis import given

from app.api.http.protocol import MAX_PIPELINED
from tests import damage
from tests.api.fuzz.conftest import (
    MAX_BODY_BYTES,
    VALID_PNG,
    Target,
    assert_no_server_error,
    checked,
    examples,
    short_id,
)

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process


class TestLimits:
    def test_body_limit_applies_to_chunked_bodies(self, target: Target) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(MAX_BODY_BYTES // 2**16 + 1):
                yield bytes(2**16)

        response = target.server.client.post("/score", content=chunks(), headers={"Content-Type": "image/png"})
        assert checked(response).status_code == 413

    def test_chunks_of_one_byte(self, target: Target) -> None:
        body = b"".join(b"1\r\n%c\r\n" % byte for byte in VALID_PNG) + b"0\r\n\r\n"
        head = b"POST /score?include= HTTP/1.1\r\nHost: localhost\r\n"
        head += b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert [answer.status for answer in exchange(target, head + body)] == [200]


@dataclass(frozen=True)
class Answer:
    status: int
    media_type: str | None
    body: bytes


class _OpenSocket:
    """A socket for HTTPResponse that stays open, so that several responses can be read from it."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def makefile(self, *_: Any) -> Self:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        pass


def exchange(target: Target, *pieces: bytes, answers: int = 1, method: str = "GET") -> list[Answer]:
    """Sends bytes and reads responses, fewer than ``answers`` if the server closes the connection."""
    received: list[Answer] = []
    with (
        socket.create_connection(("127.0.0.1", target.server.port), timeout=12) as connection,
        connection.makefile("rb") as stream,
    ):
        wire = cast(socket.socket, _OpenSocket(stream))
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has closed the connection
        try:
            while len(received) < answers:
                response = HTTPResponse(wire, method=method)
                response.begin()
                received.append(Answer(response.status, response.getheader("content-type"), response.read()))
        except (ConnectionError, ValueError):
            pass  # closed: HTTPResponse raises RemoteDisconnected, a ConnectionError
    for answer in received:
        assert_no_server_error(answer.status, answer.media_type, answer.body)
    return received


def request(target: bytes = b"/health", *headers: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n" + body


def upload(*headers: bytes, body: bytes = VALID_PNG) -> bytes:
    return request(
        b"/score?include=", b"Content-Type: image/png", b"Content-Length: %d" % len(body), *headers,
        method=b"POST", body=body,
    )  # fmt: skip


class TestWire:
    @pytest.mark.parametrize(
        "garbage",
        [
            b"\0\1\2\3\r\n\r\n", b"\r\n\r\n\0\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET\r\n\r\n", b"GET /x\r\nHost: localhost\r\n\r\n",
            b"BREW /pot HTCPCP/1.0\r\n\r\n", b"BREW /pot HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
            b"CONNECT x:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
            b"GET http://x HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /health HTTP/1.1\nHost: x\n\n",
            request(b"/health", b"X: a\0b"), request(b"/health", b"X : y"), request(b"/health", b": y"),
            request(b"/health", b"no colon"), request(b"/health", b"X: y\r\n folded"),
            upload(b"Content-Length: 5"), upload(b"Transfer-Encoding: chunked"),
            request(b"/score", b"Content-Length: -5", method=b"POST"),
            request(b"/score", b"Content-Length: +5", method=b"POST"),
            request(b"/score", b"Content-Length: 5, 5", method=b"POST"),
            request(b"/score", b"Content-Length: 0x10", method=b"POST"),
            request(b"/score", b"Content-Length: " + b"9" * 40, method=b"POST"),
            request(b"/score", b"Transfer-Encoding: identity", method=b"POST"),
        ],
        ids=short_id,
    )  # fmt: skip
    def test_malformed_http_gets_a_problem_document_and_is_closed(self, target: Target, garbage: bytes) -> None:
        answers = exchange(target, garbage, answers=2)
        assert [answer.status for answer in answers] in ([400], [404])  # 404: HTTP/0.9 requests have no headers

    @pytest.mark.parametrize(
        "size", [b"zz", b"-1", b"ffffffffffffffffff", b"1" * 100, b"", b"1;" + b"e" * 100_000], ids=short_id
    )
    def test_malformed_chunk_sizes(self, target: Target, size: bytes) -> None:
        head = request(b"/score", b"Content-Type: image/png", b"Transfer-Encoding: chunked", method=b"POST")
        began = time.perf_counter()
        exchange(target, head, size + b"\r\nx\r\n0\r\n\r\n")
        assert time.perf_counter() - began < 5

    @pytest.mark.parametrize(
        "head",
        [
            request(b"/" + b"a" * 100_000), request(b"/health?" + b"a=b&" * 50_000),
            request(b"/health", *(b"X-%d: y" % i for i in range(20_000))), request(b"/health", b"X: " + b"y" * 200_000),
            request(b"/health", b"X" * 200_000 + b": y"), request(b"/health", b"Cookie: " + b"a=b;" * 50_000),
            b"GET /" + b"a" * 1_000_000, b"GET /health HTTP/1.1\r\nX: " + b"y" * 1_000_000,
            b"A" * 1_000_000, b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 200_000,
        ],
        ids=short_id,
    )  # fmt: skip
    def test_huge_heads(self, target: Target, head: bytes) -> None:
        answers = exchange(target, *(head[at : at + 10_000] for at in range(0, len(head), 10_000)), answers=2)
        assert {answer.status for answer in answers} <= {400, 431}

    def test_head_above_the_limit_is_431(self, target: Target) -> None:
        assert [answer.status for answer in exchange(target, request(b"/health", b"X: " + b"y" * 70_000))] == [431]
        assert [answer.status for answer in exchange(target, request(b"/health", b"X: " + b"y" * 60_000))] == [200]

    @pytest.mark.parametrize(
        "path",
        [
            b"/models/%ff%fe%00%zz", b"/models/%ed%a0%80", b"/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", b"//score",
            b"/./score",
            b"/models/../../etc/passwd", b"/score;x=y", b"/score%00", b"/%", b"/health?%", b"/models/" + b"a" * 5000,
            b"*",
            b"http://elsewhere/health", b"/score?model=%00", b"/score?false_alarm_rate=nan", b"/score?include=%ff",
            b"/score?model=" + b"a" * 5000, b"/score?" + b"include=&" * 5000, b"/score?model=a&model=b", b"/health#x",
        ],
        ids=short_id,
    )  # fmt: skip
    def test_unusual_request_targets(self, target: Target, path: bytes) -> None:
        for method in (b"GET", b"POST"):
            body = VALID_PNG if method == b"POST" else b""
            headers = (b"Content-Type: image/png", b"Content-Length: %d" % len(body))
            assert len(exchange(target, request(path, *headers, method=method, body=body))) == 1

    @pytest.mark.parametrize(
        "header",
        [
            b"Accept: \xff", b"Accept: */*;q=nan", b"Accept: */*;q=1e999", b"Accept: ;;;,,,",
            b"Accept: " + b"a/b," * 9000,
            b"Authorization: Bearer \xff", b"X-Request-ID: \xff\xfe", b"X-Request-ID: " + b"a" * 5000,
            b"Content-Type: text/plain", b"Content-Encoding: gzip", b"Content-Encoding: br, zstd", b"Expect: nothing",
            b"Range: bytes=0-1", b"If-None-Match: *", b"TE: trailers", b"Forwarded: for=\"_x\"", b"Host: y",
            b"Connection: \xff",
            b"X-Forwarded-For: ', 1.2.3.4, \xff", b"X-Forwarded-Proto: gopher", b"Cookie: \xff=", b"Origin: null",
        ],
        ids=short_id,
    )  # fmt: skip
    def test_unusual_headers(self, target: Target, header: bytes) -> None:
        assert len(exchange(target, upload(header))) == 1

    @pytest.mark.parametrize(
        "offer",
        [
            (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
            (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        ],
        ids=short_id,
    )  # fmt: skip
    def test_protocol_upgrade_is_ignored_and_the_image_is_scored(self, target: Target, offer: Sequence[bytes]) -> None:
        sent = upload(*offer)
        head = sent.index(b"\r\n\r\n") + 4
        for pieces in (
            (sent,),
            (sent[:head], sent[head:]),
            (sent[: head - 10], sent[head - 10 : head + 10], sent[head + 10 :]),
        ):
            (answer,) = exchange(target, *pieces)
            assert json.loads(answer.body)["results"][0]["score"] == target.score
        assert [answer.status for answer in exchange(target, sent * 3, answers=3)] == [200] * 3

    def test_thousands_of_protocol_upgrades_on_one_connection(self, target: Target) -> None:
        """All at once, which is more than a connection may send ahead."""
        sent = request(b"/health/live", b"Connection: Upgrade", b"Upgrade: h2c") * 3000
        answers = exchange(target, sent, answers=3000)
        assert {answer.status for answer in answers} == {200}
        assert len(answers) <= MAX_PIPELINED + 1

    def test_expect_100_continue(self, target: Target) -> None:
        with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as connection:
            sent = upload(b"Expect: 100-continue")
            connection.sendall(sent[: -len(VALID_PNG)])
            assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
            connection.sendall(VALID_PNG)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")

    def test_pipelined_requests_are_answered_in_order(self, target: Target) -> None:
        sent = (upload() + request(b"/nothing") + request(b"/health/live")) * 20
        assert [answer.status for answer in exchange(target, sent, answers=60)] == [200, 404, 200] * 20

    def test_garbage_after_a_valid_request_causes_no_second_response(self, target: Target) -> None:
        answers = exchange(target, upload() + b"\0garbage\r\n\r\n", answers=3)
        assert [answer.status for answer in answers] in ([], [200], [200, 400])

    def test_clients_that_disconnect_during_a_request(self, target: Target) -> None:
        sent = upload()
        for length in range(1, len(sent), 17):
            with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as connection:
                connection.sendall(sent[:length])
        connections = Path(f"/proc/{target.server.process.pid}/fd")
        time.sleep(0.2)
        assert len(list(connections.iterdir())) < 60

    @examples(150)
    @given(damage.damaged([upload(), request(b"/models/m", b"Accept: */*")]))
    def test_damaged_requests(self, target: Target, sent: bytes) -> None:
        """A damaged request can be incomplete; then the client closes the connection."""
        with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while received := connection.recv(65536):
                answer += received
        assert not re.search(rb"HTTP/1.1 5", answer)
