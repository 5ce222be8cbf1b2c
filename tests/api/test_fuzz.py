"""Untrusted bytes against the real server: pictures, forms, the OpenAPI document, and HTTP itself.

Whatever comes, the answer is not a 5xx, an error is a problem document, no connection hangs, no traceback gets into
the log, and afterwards the same process still gives a good picture the right score.
"""

import io
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Self, cast

import httpx
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import BaseSchema, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.api.schemas import Problem, ScoreAnswer
from app.inference.store import ModelStore
from tests import hostile
from tests.support import Server, encode, gradient, make_bundle, running_server

pytestmark = pytest.mark.no_cover  # the server's lines are counted, not those of what asks it

GOOD = encode(gradient(), "PNG")
SEEDS = hostile.seeds()
CORPUS = hostile.corpus()
MIB = 2**20
MAX_BODY_BYTES = 4 * MIB


def examples(count: int) -> hypothesis.settings:
    """The same examples in every run; how long one takes is asserted where it matters."""
    return hypothesis.settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


def brief(value: object) -> str:
    """The name of a case; the cases themselves may have megabytes."""
    return repr(value)[:50]


@dataclass(frozen=True)
class Target:
    """The server under fire, and what it said of the good picture before."""

    server: Server
    score: float


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("fuzz")
    ModelStore(directory / "store").publish(*make_bundle("m"))
    with running_server(
        directory / "store", directory / "log", counted=False, model="m", log_format="json", request_timeout_s=10,
        max_body_bytes=MAX_BODY_BYTES, max_pixels=MIB, max_files=8,
    ) as server:  # fmt: skip
        yield Target(server, good_score(server))
        assert hostile.peak_bytes(server.process.pid) < 1000 * MIB


@pytest.fixture(autouse=True)
def unharmed(target: Target) -> Iterator[None]:
    """After each test the same process answers as before, and its log tells of no defect."""
    before = target.server.log.stat().st_size
    yield
    assert target.server.process.poll() is None
    assert good_score(target.server) == target.score
    with target.server.log.open() as log:
        log.seek(before)
        written = log.read()
    assert "Traceback" not in written
    assert not re.search(r'"status":5|"level":"(error|critical)".*"exception"', written)


def good_score(server: Server) -> float:
    response = server.client.post("/score?include=", content=GOOD, headers={"Content-Type": "image/png"})
    assert response.status_code == 200, response.text
    return ScoreAnswer.model_validate_json(response.content).results[0].score  # type: ignore[union-attr]


def well_behaved(status: int, media_type: str | None, body: bytes) -> None:
    """Not a 5xx, and a problem document where it is an error."""
    assert 200 <= status < 500, (status, body)
    if status >= 400:
        assert media_type == "application/problem+json", body
        problem = Problem.model_validate_json(body)
        assert problem.status == status
        assert problem.type.startswith("urn:problem-type:")
        assert problem.title
        assert problem.detail
        assert problem.instance


def behaved(response: httpx.Response) -> httpx.Response:
    well_behaved(response.status_code, response.headers.get("content-type"), response.content)
    return response


class TestPictures:
    @examples(250)
    @given(hostile.damaged(list(SEEDS.values())))
    def test_damaged(self, target: Target, data: bytes) -> None:
        began = time.perf_counter()
        response = target.server.client.post(
            "/score?include=reconstruction,error_map", content=data or b"x", headers={"Content-Type": "image/x"}
        )
        assert behaved(response).status_code in {200, 413, 422}
        assert time.perf_counter() - began < 5

    @examples(60)
    @given(st.lists(hostile.damaged(list(SEEDS.values())), min_size=1, max_size=7))
    def test_damaged_ones_among_good_ones(self, target: Target, files: list[bytes]) -> None:
        """A file that cannot be read harms no other."""
        parts = [("file", ("good.png", GOOD)), *(("file", ("x", data)) for data in files)]
        answer = behaved(target.server.client.post("/score?include=", files=parts))
        assert answer.status_code == 200
        results = ScoreAnswer.model_validate_json(answer.content).results
        assert len(results) == len(parts)
        assert results[0].status == "scored"
        assert results[0].score == target.score

    @pytest.mark.parametrize("name", CORPUS)
    def test_hostile(self, target: Target, name: str) -> None:
        began = time.perf_counter()
        hostile.forget_peak(target.server.process.pid)
        before = hostile.resident_bytes(target.server.process.pid)
        response = target.server.client.post("/score", files={"file": (name, CORPUS[name])})
        assert behaved(response).status_code in {200, 413, 422}
        assert time.perf_counter() - began < 5
        assert hostile.peak_bytes(target.server.process.pid) - before < 150 * MIB

    def test_many_at_once(self, target: Target) -> None:
        """Memory stays where it was, and whoever must wait is told so."""
        names = ("png-deep-bomb", "tiff-tile-bomb", "gif-comments", "jpeg-scans", "png-text-bombs", "bmp-rle-rows")

        def send(name: str) -> int:
            return behaved(target.server.client.post("/score", files={"file": CORPUS[name]})).status_code

        def send_all() -> int:
            with ThreadPoolExecutor(12) as pool:
                assert set(pool.map(send, names * 4)) <= {200, 413, 422, 429}
            return hostile.resident_bytes(target.server.process.pid)

        first = send_all()
        assert send_all() - first < 100 * MIB


PIXELS = bytes(range(64))
TENSOR: dict[str, Any] = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "UINT8"}
BINARY = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 64}}]}).encode()


class TestTensors:
    @examples(300)
    @given(hostile.damaged([json.dumps({"inputs": [{**TENSOR, "data": list(PIXELS)}]}).encode(), BINARY + PIXELS]))
    def test_damaged(self, target: Target, body: bytes) -> None:
        for headers in ({}, {"Inference-Header-Content-Length": str(len(BINARY))}):
            response = target.server.client.post("/v2/models/m/infer", content=body, headers=headers)
            assert response.status_code in {200, 400, 413}
            if response.status_code != 200:
                assert list(response.json()) == ["error"]

    @pytest.mark.parametrize("data", [b"[0]", b"0", b"[[]]", b"{}", b"0.5", b"1e999", b"[" * 900 + b"]" * 900])
    def test_as_much_json_as_there_may_be(self, target: Target, data: bytes) -> None:
        head = json.dumps({"inputs": [TENSOR]}).encode().removesuffix(b"}]}") + b', "data": ['
        count = (MAX_BODY_BYTES - len(head) - 4) // (len(data) + 1)
        hostile.forget_peak(target.server.process.pid)
        before = hostile.resident_bytes(target.server.process.pid)
        began = time.perf_counter()
        body = head + b",".join([data] * count) + b"]}]}"
        assert target.server.client.post("/v2/models/m/infer", content=body).status_code == 400
        assert time.perf_counter() - began < 3
        assert hostile.peak_bytes(target.server.process.pid) - before < 250 * MIB


class TestForms:
    @pytest.mark.parametrize("name", hostile.FILE_NAMES, ids=brief)
    def test_file_names(self, target: Target, name: str) -> None:
        """Names come back as they were sent, inside JSON, and get nowhere else."""
        disposition = f'form-data; name="file"; filename="{name}"'.encode()
        raw = part(disposition, GOOD)
        response = behaved(send_form(target, raw))
        assert "x-injected" not in response.headers
        if response.status_code == 200:
            assert response.json()["results"][0]["status"] == "scored"

    @pytest.mark.parametrize(
        "headers",
        [
            b"", b"\r\n", b"Content-Disposition\r\n\r\n", b": x\r\n\r\n", b"Content-Disposition: \r\n\r\n",
            b"Content-Disposition: form-data\r\n\r\n", b"Content-Disposition: form-data; name=\r\n\r\n",
            b'Content-Disposition: form-data; name="file\r\n\r\n', b"X" * 100_000 + b": y\r\n\r\n",
            b'Content-Disposition: form-data; name="file"; filename*=utf-8\'\'%ff%00\r\n\r\n',
            b"Content-Disposition: form-data; name*=x''file\r\n\r\n", b"\xff\xfe: \xff\r\n\r\n",
            b'Content-Disposition: form-data; name="file"; filename="\xff\xfe\xed\xa0\x80"\r\n\r\n',
            b'Content-Disposition: form-data; name="file"\r\nContent-Transfer-Encoding: base64\r\n\r\n',
            b'Content-Disposition: form-data; name="file"\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n',
            b'Content-Disposition: form-data; name="_charset_"\r\n\r\nutf-7\r\n--xx\r\n',
        ],
        ids=brief,
    )  # fmt: skip
    def test_part_headers(self, target: Target, headers: bytes) -> None:
        behaved(send_form(target, b"--xx\r\n" + headers + GOOD + b"\r\n--xx--\r\n"))

    @pytest.mark.parametrize(
        "content_type",
        [
            "multipart/form-data; boundary", "multipart/form-data; boundary=\"", "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=xx; boundary=yy", "multipart/form-data; charset=utf-7; boundary=xx",
            "multipart/form-data; boundary*=utf-8''xx", "multipart/mixed; boundary=xx", "multipart/", "/", ";",
            "image/",
            "multipart/form-data;" + "a=b;" * 5000, "image/png; " + "q" * 20_000, "image/png, multipart/form-data",
        ],
        ids=brief,
    )  # fmt: skip
    def test_content_types(self, target: Target, content_type: str) -> None:
        body = part(b'form-data; name="file"; filename="a"', GOOD)
        behaved(target.server.client.post("/score", content=body, headers={"Content-Type": content_type}))

    def test_ten_thousand_tiny_parts(self, target: Target) -> None:
        tiny = b'--xx\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
        assert behaved(send_form(target, tiny * 10_000 + b"--xx--\r\n")).status_code == 413

    def test_ten_thousand_headers_in_a_part(self, target: Target) -> None:
        behaved(send_form(target, b"--xx\r\n" + b"A: b\r\n" * 10_000 + b"\r\n" + GOOD + b"\r\n--xx--\r\n"))

    def test_an_endless_part_header(self, target: Target) -> None:
        began = time.perf_counter()
        behaved(send_form(target, b"--xx\r\nA: " + b"b" * 3_000_000))
        assert time.perf_counter() - began < 3

    def test_almost_boundaries(self, target: Target) -> None:
        """Content made of beginnings of the boundary."""
        began = time.perf_counter()
        body = part(b'form-data; name="file"; filename="a"', b"\r\n--x" * 400_000)
        assert behaved(send_form(target, body)).status_code == 422
        assert time.perf_counter() - began < 5

    @examples(150)
    @given(hostile.damaged([b"--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n"
                            b"Content-Type: image/png\r\n\r\n" + GOOD + b"\r\n--xx--\r\n"]))  # fmt: skip
    def test_damaged_forms(self, target: Target, body: bytes) -> None:
        behaved(send_form(target, body))


def part(disposition: bytes, content: bytes) -> bytes:
    return b"--xx\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n--xx--\r\n"


def send_form(target: Target, body: bytes) -> httpx.Response:
    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    return target.server.client.post("/score?include=", content=body, headers=headers)


class TestLimits:
    def test_real_bytes_count_whatever_the_framing(self, target: Target) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(MAX_BODY_BYTES // 2**16 + 1):
                yield bytes(2**16)

        response = target.server.client.post("/score", content=chunks(), headers={"Content-Type": "image/png"})
        assert behaved(response).status_code == 413

    def test_one_byte_chunks(self, target: Target) -> None:
        body = b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD) + b"0\r\n\r\n"
        head = (
            b"POST /score?include= HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert [answer.status for answer in exchange(target, head + body)] == [200]


@dataclass(frozen=True)
class Answer:
    status: int
    media_type: str | None
    body: bytes


class _Wire:
    """What HTTPResponse wants of a socket, so that several answers can be read from one: its file stays open."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def makefile(self, *_: Any) -> Self:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        pass


def exchange(target: Target, *pieces: bytes, answers: int = 1, method: str = "GET") -> list[Answer]:
    """Sends bytes as they are and reads so many answers, or fewer where the server hangs up. Never waits long."""
    received: list[Answer] = []
    with (
        socket.create_connection(("127.0.0.1", target.server.port), timeout=12) as connection,
        connection.makefile("rb") as stream,
    ):
        wire = cast(socket.socket, _Wire(stream))
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough
        try:
            while len(received) < answers:
                response = HTTPResponse(wire, method=method)
                response.begin()
                received.append(Answer(response.status, response.getheader("content-type"), response.read()))
        except (ConnectionError, ValueError):
            pass  # hung up: HTTPResponse raises RemoteDisconnected, a ConnectionError
    for answer in received:
        well_behaved(answer.status, answer.media_type, answer.body)
    return received


def request(target: bytes = b"/health", *headers: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n" + body


def upload(*headers: bytes, body: bytes = GOOD) -> bytes:
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
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET\r\n\r\n", b"GET /x\r\nHost: x\r\n\r\n",
            b"BREW /pot HTCPCP/1.0\r\n\r\n", b"BREW /pot HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
            b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n",
            b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /health HTTP/1.1\nHost: x\n\n",
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
        ids=brief,
    )  # fmt: skip
    def test_what_is_not_http_gets_a_problem_document_and_a_closed_connection(
        self, target: Target, garbage: bytes
    ) -> None:
        answers = exchange(target, garbage, answers=2)
        assert [answer.status for answer in answers] in ([400], [404])  # 404: HTTP/0.9 has no headers to be wrong

    @pytest.mark.parametrize(
        "size", [b"zz", b"-1", b"ffffffffffffffffff", b"1" * 100, b"", b"1;" + b"e" * 100_000], ids=brief
    )
    def test_bad_chunks(self, target: Target, size: bytes) -> None:
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
        ids=brief,
    )  # fmt: skip
    def test_heads_too_large(self, target: Target, head: bytes) -> None:
        answers = exchange(target, *(head[at : at + 10_000] for at in range(0, len(head), 10_000)), answers=2)
        assert {answer.status for answer in answers} <= {400, 431}

    def test_a_large_head_is_told_so(self, target: Target) -> None:
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
        ids=brief,
    )  # fmt: skip
    def test_odd_targets(self, target: Target, path: bytes) -> None:
        for method in (b"GET", b"POST"):
            body = GOOD if method == b"POST" else b""
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
        ids=brief,
    )  # fmt: skip
    def test_odd_headers(self, target: Target, header: bytes) -> None:
        assert len(exchange(target, upload(header))) == 1

    @pytest.mark.parametrize(
        "offer",
        [
            (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
            (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        ],
        ids=brief,
    )  # fmt: skip
    def test_offers_of_other_protocols_are_declined_without_losing_the_picture(
        self, target: Target, offer: Sequence[bytes]
    ) -> None:
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

    def test_thousands_of_offers_on_one_connection(self, target: Target) -> None:
        sent = request(b"/health/live", b"Connection: Upgrade", b"Upgrade: h2c") * 3000
        assert [answer.status for answer in exchange(target, sent, answers=3000)] == [200] * 3000

    def test_expect_continue(self, target: Target) -> None:
        with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as connection:
            sent = upload(b"Expect: 100-continue")
            connection.sendall(sent[: -len(GOOD)])
            assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
            connection.sendall(GOOD)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")

    def test_pipelined_requests_are_answered_in_order(self, target: Target) -> None:
        sent = (upload() + request(b"/nothing") + request(b"/health/live")) * 20
        assert [answer.status for answer in exchange(target, sent, answers=60)] == [200, 404, 200] * 20

    def test_garbage_behind_a_good_request_gets_no_second_answer_to_the_first(self, target: Target) -> None:
        answers = exchange(target, upload() + b"\0garbage\r\n\r\n", answers=3)
        assert [answer.status for answer in answers] in ([], [200], [200, 400])

    def test_clients_that_leave_halfway(self, target: Target) -> None:
        sent = upload()
        for length in range(1, len(sent), 17):
            with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as connection:
                connection.sendall(sent[:length])
        connections = Path(f"/proc/{target.server.process.pid}/fd")
        time.sleep(0.2)
        assert len(list(connections.iterdir())) < 60

    @examples(150)
    @given(hostile.damaged([upload(), request(b"/models/m", b"Accept: */*")]))
    def test_damaged_requests(self, target: Target, sent: bytes) -> None:
        """Damage may leave a request that waits for more: the client hangs up then, and nothing is left behind."""
        with socket.create_connection(("127.0.0.1", target.server.port), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while received := connection.recv(65536):
                answer += received
        assert not re.search(rb"HTTP/1.1 5", answer)


class TestOpenApi:
    """Requests made from the OpenAPI document, after its rules and against them, keep it word for word."""

    CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)

    @pytest.fixture
    def document(self, target: Target) -> BaseSchema:
        files = list(SEEDS.values())
        for media_type in ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff"):
            schemathesis.openapi.media_type(media_type, st.sampled_from(files) | hostile.damaged(files))
        base = f"http://127.0.0.1:{target.server.port}"
        return schemathesis.openapi.from_url(f"{base}/openapi.json", config=schemathesis.Config())

    @pytest.mark.parametrize("mode", list(GenerationMode))
    def test_every_operation_keeps_its_word(self, target: Target, document: BaseSchema, mode: GenerationMode) -> None:
        tried = []
        with requests.Session() as session:
            for found in document.get_all_operations():
                assert isinstance(found, Ok)
                operation = found.ok()

                @examples(30 if operation.method == "post" else 8)
                @given(operation.as_strategy(generation_mode=mode))
                def keeps_its_word(case: schemathesis.Case[Any]) -> None:
                    case.call_and_validate(session=session, checks=list(self.CHECKS), timeout=10)

                with suppress(Unsatisfiable):  # an operation without parameters has no rules to break
                    keeps_its_word()
                    tried.append(operation.label)
        reads = {"GET /health", "GET /models", "GET /models/{name}", "GET /metrics"}
        scoring = {"POST /score", "POST /v2/models/{name}/infer", "POST /v2/models/{name}/versions/{version}/infer"}
        assert scoring | (reads if mode is GenerationMode.POSITIVE else set()) <= set(tried)
