"""Fixtures: the command line, both clients with one interface, many images, a server that fails at first."""

import asyncio
import csv
import io
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from app.client import AnomalyClient, AsyncAnomalyClient
from app.client.runs.cli import main
from tests.support import Server, running_server

Connect = Callable[..., AnomalyClient]
Digits = dict[int, list[bytes]]
Command = Callable[..., "CompletedRun"]
COMMAND = [sys.executable, "-m", "app.client"]


class BlockingClient:
    """An ``AsyncAnomalyClient`` with the synchronous interface of ``AnomalyClient``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncAnomalyClient(*args, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: self._runner.run(getattr(self._client, name)(*args, **options))

    def close(self) -> None:
        self.aclose()
        self._runner.close()

    def __enter__(self) -> "BlockingClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Creates a client: synchronous in one run of the test, asynchronous in the other."""
    return AnomalyClient if request.param == "sync" else cast("Connect", BlockingClient)


@pytest.fixture
def service(connect: Connect, url: str) -> Iterator[AnomalyClient]:
    with connect(url) as client:
        yield client


@pytest.fixture(scope="session")
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="session")
def closed_url(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that requires an API key and has a model that failed verification."""
    root = tmp_path_factory.mktemp("closed")
    shutil.copytree(store, root / "store")
    (root / "store" / "broken").mkdir()
    (root / "store" / "broken" / "CURRENT").write_text("gone\n")
    with running_server(
        root / "store", root / "log", measure_coverage=False, model="digits-5", api_keys="schlüssel"
    ) as closed:
        yield f"http://127.0.0.1:{closed.port}"


@pytest.fixture(scope="session")
def folder(digit_files: dict[int, list[bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 1,797 digits, one subfolder per digit."""
    root = tmp_path_factory.mktemp("digits")
    for digit, files in digit_files.items():
        (root / str(digit)).mkdir()
        for number, data in enumerate(files):
            (root / str(digit) / f"{number:03}.png").write_bytes(data)
    return root


def images_scored(server: Server) -> int:
    """The service's own count of scored and rejected images."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("anomaly_images_total{"))


@dataclass
class Failure:
    """An error response, or a closed connection if ``status`` is ``None``."""

    status: int | None = 429
    headers: Mapping[str, str] = field(default_factory=dict)


def http_date(seconds_from_now: float) -> str:
    return formatdate(time.time() + seconds_from_now, usegmt=True)


class BusyServer(ThreadingHTTPServer):
    """Forwards requests to a real service, but fails the first POST requests as listed in ``failures``."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = httpx.Client(base_url=upstream, trust_env=False)
        self.failures: list[Failure] = []
        self.times: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def delays(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BusyServer

    def do_GET(self) -> None:
        answer = self.server.upstream.get(self.path, headers=self._headers())
        self._send(answer.status_code, answer.headers["Content-Type"], answer.content)

    def do_POST(self) -> None:
        self.server.times.append(time.monotonic())
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.failures:
            failure = self.server.failures.pop(0)
            if failure.status is None:
                self.close_connection = True
                return
            problem = b'{"type":"urn:x","title":"Busy","status":%d,"detail":"wait","instance":"1"}' % failure.status
            self._send(failure.status, "application/problem+json", problem, failure.headers)
            return
        answer = self.server.upstream.post(self.path, content=body, headers=self._headers())
        self._send(answer.status_code, answer.headers["Content-Type"], answer.content)

    def _headers(self) -> dict[str, str]:
        return {name: self.headers[name] for name in ("Accept", "Content-Type") if name in self.headers}

    def _send(self, status: int, media_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": media_type, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent; the tests read ``times``."""


@pytest.fixture
def busy(url: str) -> Iterator[BusyServer]:
    with BusyServer(url) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        server.upstream.close()


class CompletedRun:
    """Exit status and output of a run."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status = status
        self.out = out.decode()
        self.err = err.decode()

    @property
    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.out, newline="")))


@pytest.fixture
def command(url: str, capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    def run(*arguments: object) -> CompletedRun:
        status = main([*map(str, arguments), *(() if "--url" in arguments else ("--url", url))])
        return CompletedRun(status, *capfdbinary.readouterr())

    return run


@pytest.fixture
def few(digit_files: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two fives and a zero in the folder ``few`` of the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, data in (
        ("five.png", digit_files[5][0]),
        ("sub/zero.png", digit_files[0][0]),
        ("b.png", digit_files[5][1]),
    ):
        path = tmp_path / "few" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Path("few")


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]
