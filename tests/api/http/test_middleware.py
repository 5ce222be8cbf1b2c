"""HEAD wherever GET is, keys, and requests from pages of other origins (CORS)."""

import asyncio
import hmac
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from app.api.http.middleware import RequireKey
from app.api.request_state import open_request_state, request_state
from app.inference.serving.memory import Memory
from tests.support import Server, encode, gradient, running_server

PNG = encode(gradient())
ORIGIN = "https://shop.example.com"
EXPOSED = {
    "x-request-id", "retry-after", "inference-header-content-length", "x-anomaly-mse", "x-anomaly-score",
    "x-anomaly-threshold", "x-anomaly-p-value", "x-anomaly-verdict", "x-anomaly-model",
}  # fmt: skip
UNEQUAL = {"date", "x-request-id", "content-length"}


class TestHead:
    def test_head_has_the_headers_of_get_and_no_body(self, server: Server) -> None:
        document = server.client.get("/openapi.json").json()
        paths = [path for path, operations in document["paths"].items() if "get" in operations]
        paths.remove("/feedback/images/{name}")  # this server stores none
        assert len(paths) > 15
        version = server.client.get("/models/digits-5").json()["version"]
        for template in [*paths, "/", "/docs", "/openapi.json", "/static/page.js", "/static/samples/five.png"]:
            path = template.format(name="digits-5", project="digits-5", version=version, file="loss.png")
            get, head = server.client.get(path), server.client.head(path)
            assert (get.status_code, head.status_code) == (200, 200), path
            assert head.content == b""
            assert set(head.headers) == set(get.headers), path
            for name in set(get.headers) - UNEQUAL:
                assert head.headers[name] == get.headers[name], (path, name)
            assert int(head.headers["Content-Length"]) > 0

    def test_head_has_the_length_of_the_body(self, server: Server) -> None:
        for path in ("/models/digits-5", "/static/page.js", "/openapi.json", "/models/digits-5/report/loss.png"):
            length = len(server.client.get(path).content)
            assert server.client.head(path).headers["Content-Length"] == str(length)

    def test_head_of_errors(self, server: Server) -> None:
        for path, status in (("/models/nothing", 404), ("/nothing", 404), ("/score", 405)):
            response = server.client.head(path)
            assert (response.status_code, response.content) == (status, b"")
        assert server.client.head("/score").headers["Allow"] == "POST"

    def test_connection_is_kept_after_head(self, server: Server) -> None:
        with httpx.Client(base_url=server.client.base_url, trust_env=False) as client:
            for _ in range(3):
                assert client.head("/health").status_code == 200
                assert client.get("/health").json()["status"] == "ok"

    def test_head_is_not_documented_as_operations_of_its_own(self, server: Server) -> None:
        document = server.client.get("/openapi.json").json()
        assert not any("head" in operations for operations in document["paths"].values())

    def test_head_is_counted_under_its_method_and_route(self, server: Server) -> None:
        server.client.head("/models/digits-5")
        metric = 'anomaly_requests_total{method="HEAD",route="/models/{name}",status="200"}'
        assert metric in server.client.get("/metrics").text


@pytest.fixture(scope="module")
def open_server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key that two other origins may use."""
    with running_server(
        store, tmp_path_factory.mktemp("log") / "log", model="digits-5", api_keys="secret", max_files=2,
        cors_origins=f"{ORIGIN}, http://localhost:5173",
    ) as running:  # fmt: skip
        yield running


def preflight(server: Server, origin: str = ORIGIN, method: str = "POST", path: str = "/score") -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, x-api-key, content-type, traceparent",
    }
    return server.client.options(path, headers=headers)


def names(header: str) -> set[str]:
    return {each.strip().lower() for each in header.split(",")}


class TestOrigins:
    @pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:5173"])
    @pytest.mark.parametrize("path", ["/score", "/models", "/v2/models/digits-5/infer"])
    def test_preflight_needs_no_key(self, open_server: Server, origin: str, path: str) -> None:
        response = preflight(open_server, origin, path=path)
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert names(response.headers["Access-Control-Allow-Methods"]) == {"get", "head", "post"}
        assert names(response.headers["Access-Control-Allow-Headers"]) >= {"authorization", "x-api-key", "content-type"}
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert "origin" in names(response.headers["Vary"])

    @pytest.mark.parametrize(
        ("origin", "method"),
        [("https://evil.example.com", "POST"), ("http://shop.example.com", "POST"), ("null", "POST"), (ORIGIN, "PUT")],
    )
    def test_other_preflights_are_problem_documents(self, open_server: Server, origin: str, method: str) -> None:
        response = preflight(open_server, origin, method)
        assert response.status_code == 400
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["instance"] == response.headers["X-Request-ID"]
        assert "Access-Control-Allow-Origin" not in response.headers

    @pytest.mark.parametrize(
        ("files", "key", "status"), [(1, "secret", 200), (1, "wrong", 401), (3, "secret", 413), (0, "secret", 400)]
    )
    def test_every_response_can_be_read(self, open_server: Server, files: int, key: str, status: int) -> None:
        headers = {"Origin": ORIGIN, "X-API-Key": key}
        response = open_server.client.post("/score", files=[("file", PNG)] * files or None, headers=headers)
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert names(response.headers["Access-Control-Expose-Headers"]) == EXPOSED
        assert "origin" in names(response.headers["Vary"])

    def test_exposed_headers_are_those_of_png_responses(self, open_server: Server) -> None:
        headers = {"Origin": ORIGIN, "X-API-Key": "secret", "Accept": "image/png"}
        response = open_server.client.post("/score", files={"file": PNG}, headers=headers)
        sent = {name for name in response.headers if name.startswith("x-anomaly-")}
        assert sent == {name for name in EXPOSED if name.startswith("x-anomaly-")}

    def test_responses_to_other_origins_cannot_be_read(self, open_server: Server) -> None:
        headers = {"Origin": "https://evil.example.com", "X-API-Key": "secret"}
        response = open_server.client.get("/models", headers=headers)
        assert response.status_code == 200
        assert "Access-Control-Allow-Origin" not in response.headers

    def test_wildcard_allows_every_origin(self, store: Path, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with running_server(store, log, model="digits-5", cors_origins="*", log_format="json") as server:
            assert preflight(server, "https://any.example.org").headers["Access-Control-Allow-Origin"] == "*"
            response = server.client.get("/health", headers={"Origin": "https://any.example.org"})
            assert response.headers["Access-Control-Allow-Origin"] == "*"
        requests = [json.loads(line) for line in log.read_text().splitlines() if '"request"' in line]
        assert any(each["method"] == "OPTIONS" and each["status"] == 200 for each in requests)

    def test_off_by_default(self, server: Server) -> None:
        assert preflight(server).status_code == 405
        response = server.client.get("/health", headers={"Origin": ORIGIN})
        assert not any(name.startswith("access-control-") for name in response.headers)


class TestKeys:
    def test_comparisons_have_one_length_and_number_whatever_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The time of comparing keys themselves depends on their lengths, and on where they differ."""
        compared: list[tuple[int, int]] = []

        def compare(sent: bytes, key: bytes) -> bool:
            compared.append((len(sent), len(key)))
            return sent == key

        monkeypatch.setattr(hmac, "compare_digest", compare)
        keys = RequireKey(_no_app, ["a", "beta", "c" * 1000])
        sent = ["", "a", "beta", "bet", "c" * 999, "x" * 5000, "ä"]
        found = [keys._key_of(Headers({"X-API-Key": each})) for each in sent]
        assert found == [None, 0, 1, None, None, None, None]
        assert compared == [(32, 32)] * (2 * len(keys._digests) * len(sent))

    def test_the_key_says_who_shares(self) -> None:
        clients: list[str] = []

        async def app(scope: Scope, _: Receive, __: Send) -> None:
            clients.append(request_state(scope).claim.client)

        keys = RequireKey(app, ["alpha", "beta"])
        for key in (b"alpha", b"beta", b"alpha"):
            scope = {"type": "http", "path": "/score", "headers": [(b"x-api-key", key)]}
            open_request_state(scope, "r1", Memory(1).claim("10.0.0.1"))
            asyncio.run(keys(scope, None, None))  # type: ignore[arg-type]
        assert clients[0] == clients[2] != clients[1]
        assert not any("alpha" in client or "beta" in client for client in clients)


async def _no_app(*_: object) -> None:
    raise AssertionError
