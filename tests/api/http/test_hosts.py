"""The Host of a request, and who sends it."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.http.clients import network_of
from app.api.http.hosts import RequireHost
from app.api.request_state import open_request_state
from app.inference.serving.memory import Memory
from tests import warm
from tests.support import ROOT, Server, encode, free_port, gradient


def status(bound: str, allowed: tuple[str, ...], *hosts: str, version: str = "1.1") -> int:
    """The status of a request with these Host headers to a service bound to an address."""
    sent: list[int] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    headers = [(b"host", host.encode()) for host in hosts]
    scope = {"type": "http", "path": "/", "http_version": version, "headers": headers}
    open_request_state(scope, "r1", Memory(1).claim("a"))
    asyncio.run(RequireHost(app, bound, allowed)(scope, None, send))  # type: ignore[arg-type]
    return sent[0]


@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_service_on_a_loopback_address_answers_for_this_machine_only(bound: str) -> None:
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000", "a.localhost", "127.8.9.1"):
        assert status(bound, (), host) == 200, host
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "192.168.0.7", "0.0.0.0", "[::2]"):
        assert status(bound, (), host) == 421, host


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "192.168.0.7", "anomaly.example"])
def test_service_on_other_addresses_answers_for_every_name(bound: str) -> None:
    for host in ("anomaly.example", "10.0.0.3:8000", "localhost"):
        assert status(bound, (), host) == 200


def test_allowed_hosts_replace_the_default() -> None:
    for bound in ("127.0.0.1", "0.0.0.0"):
        allowed = ("anomaly.example", "10.0.0.3", "[fd00::1]")
        for host in ("Anomaly.Example", "anomaly.example:443", "10.0.0.3", "[fd00::1]:80"):
            assert status(bound, allowed, host) == 200
        for host in ("localhost", "other.example"):
            assert status(bound, allowed, host) == 421
        assert status(bound, ("*",), "any.example") == 200


@pytest.mark.parametrize(
    "hosts", [(), ("localhost", "localhost"), ("",), ("a b",), ("localhost:x",), ("a/b",), ("user@localhost",)]
)
def test_missing_double_or_malformed_host_is_400(hosts: tuple[str, ...]) -> None:
    assert status("127.0.0.1", (), *hosts) == status("0.0.0.0", ("*",), *hosts) == 400


def test_version_1_0_has_no_host() -> None:
    assert status("127.0.0.1", (), version="1.0") == 200
    assert status("127.0.0.1", (), "evil.example", version="1.0") == 421


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [(b"Host: evil.example\r\n", 421), (b"", 400), (b"Host: localhost\r\nHost: localhost\r\n", 400)],
)
def test_page_of_another_site_cannot_reach_the_service(server: Server, hosts: bytes, expected: int) -> None:
    """DNS rebinding: the name of a site resolves to 127.0.0.1, and the browser sends that name."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /models HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 %d " % expected)
    assert b"content-type: application/problem+json" in received
    assert b"x-content-type-options: nosniff" in received


@pytest.mark.parametrize("path", ["/", "/health", "/score", "/models", "/nothing", "/static/page.js", "/openapi.json"])
def test_every_answer_has_nosniff(server: Server, path: str) -> None:
    assert server.client.get(path).headers.get_list("X-Content-Type-Options") == ["nosniff"]


def test_addresses_of_one_host_are_one_client() -> None:
    assert network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("fd00::1") == network_of("fd00::ffff:1") != network_of("fd00:0:0:1::1")
    assert network_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert network_of("not an address") == "not an address"


def test_service_on_ipv6(store: Path, tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANOMALY_")}
    settings = {"model_store": store, "model": "digits-5", "host": "::1", "port": port, "drain_s": 0}
    environment |= {f"ANOMALY_{name.upper()}": str(value) for name, value in settings.items()}
    process = warm.Process("app", cwd=ROOT, env=environment, log=tmp_path / "log", measure_coverage=False)
    try:
        with httpx.Client(base_url=f"http://[::1]:{port}", trust_env=False) as client:
            server = Server(process, client, port, tmp_path / "log")
            server.wait_for("/health/ready", 200)
            headers = {"Content-Type": "image/png"}
            assert client.post("/score", content=encode(gradient()), headers=headers).status_code == 200
            assert client.get("/health", headers={"Host": "evil.example"}).status_code == 421
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
