"""Health, models, metrics, API keys, overload, timeouts, and changes of the store while the service runs."""

import json
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.api.schemas.health import Health
from app.api.schemas.model_cards import ModelCard, Models
from app.inference.bundles.store import ModelStore
from tests.support import Server, encode, gradient, make_bundle, running_server
from training.run import Published

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process

PNG = encode(gradient())
BEGUN_UPLOAD = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nxxx"


def score(server: Server, **options: object) -> int:
    return server.client.post("/score", files={"file": PNG}, **options).status_code  # type: ignore[arg-type]


class TestHealth:
    def test_ok(self, server: Server, trained: Published) -> None:
        response = server.client.get("/health")
        assert response.status_code == 200
        body = response.json()
        assert body["status"] == "ok"
        assert body["model"] == {"name": "digits-5", "version": trained.manifest.version}
        assert body["model"] in body["models"]
        assert body["uptime_s"] > 0
        Health.model_validate(body)

    def test_live_and_ready(self, server: Server) -> None:
        assert server.client.get("/health/live").json() == {"status": "alive"}
        assert server.client.get("/health/ready").json() == {"status": "ready"}


class TestModels:
    def test_card(self, server: Server, trained: Published) -> None:
        body = server.client.get("/models/digits-5").json()
        card = ModelCard.model_validate(body)
        manifest = trained.manifest
        assert (card.version, card.threshold, card.false_alarm_rate) == (
            manifest.version, manifest.threshold, manifest.false_alarm_rate,
        )  # fmt: skip
        assert card.calibration.size == manifest.calibration.size
        assert card.calibration.error_quantiles["1"] == manifest.calibration.scores[-1]
        assert card.evaluation is not None
        assert card.files["model.pt"] == manifest.files["model.pt"]
        assert card.training.seed == 1337
        assert card.training.recipe["name"] == "default"
        assert "torch" in card.libraries

    def test_list(self, server: Server) -> None:
        body = Models.model_validate(server.client.get("/models").json())
        assert body.default == "digits-5"
        assert [card.name for card in body.models] == ["colour", "digits-5"]
        assert body.refused == []
        assert (body.total, body.next) == (2, None)


def test_metrics_count_requests_and_images(server: Server, trained: Published) -> None:
    def value(line: str) -> float:
        for found in server.client.get("/metrics").text.splitlines():
            if found.startswith(line + " "):
                return float(found.split()[-1])
        return 0.0

    requests = 'anomaly_requests_total{method="POST",route="/score",status="200"}'
    rejected = 'anomaly_rejected_total{reason="unreadable-image"}'
    before = value(requests), value(rejected), value('anomaly_mse_count{model="digits-5"}')
    files = [("file", PNG), ("file", b"nothing")]
    assert server.client.post("/score", files=files).status_code == 200
    assert (value(requests), value(rejected), value('anomaly_mse_count{model="digits-5"}')) == tuple(
        number + 1 for number in before
    )
    assert value(f'anomaly_model_info{{model="digits-5",version="{trained.manifest.version}"}}') == 1
    assert value("anomaly_queue_depth") == 0
    server.client.get("/some/unknown/path")
    text = server.client.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "unknown/path" not in text.text


def test_api_keys_are_required_except_for_health(store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(store, log, model="digits-5", api_keys="alpha,beta-secret", log_format="json") as server:
        for path in ("/models", "/metrics", "/feedback", "/openapi.json", "/healthy"):
            assert server.client.get(path).status_code == 401
        for path in ("/health", "/health/live", "/health/ready", "/", "/docs", "/static/page.js", "/static/page.css"):
            assert server.client.get(path).status_code == 200
        refused = server.client.post("/score", files={"file": PNG})
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert refused.headers["content-type"] == "application/problem+json"
        invalid: list[dict[str, str]] = [
            {"X-API-Key": "beta"}, {"X-API-Key": ""}, {"Authorization": "Bearer alphaa"},
            {"Authorization": "Basic alpha"}, {"Authorization": "alpha"},
        ]  # fmt: skip
        valid: list[dict[str, str]] = [
            {"X-API-Key": "beta-secret"}, {"Authorization": "Bearer alpha"}, {"Authorization": "bearer alpha"},
            {"Authorization": "Bearer something else", "X-API-Key": "alpha"},
        ]  # fmt: skip
        assert [score(server, headers=headers) for headers in invalid] == [401] * len(invalid)
        assert [score(server, headers=headers) for headers in valid] == [200] * len(valid)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line["event"] == "request" and line.get("model") == "digits-5" for line in lines)
    assert "beta-secret" not in log.read_text()


def test_full_queue_is_429(store: Path, tmp_path: Path) -> None:
    large = encode(gradient(3000, 3000))
    with (
        running_server(store, tmp_path / "log", model="digits-5", max_files=4, queue_size=4) as server,
        ThreadPoolExecutor(12) as pool,
    ):

        def send(_: int) -> tuple[int, str | None]:
            response = server.client.post("/score", files=[("file", large)] * 4)
            return response.status_code, response.headers.get("Retry-After")

        answers = list(pool.map(send, range(12)))
        assert (200, None) in answers
        refused = set(answers) - {(200, None)}
        assert {status for status, _ in refused} == {429}
        assert all(wait is not None and 1 <= int(wait) <= 60 for _, wait in refused)
        assert score(server) == 200


def test_slow_upload_is_504(store: Path, tmp_path: Path) -> None:
    with running_server(store, tmp_path / "log", model="digits-5", request_timeout_s=0.5) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(BEGUN_UPLOAD)
            assert connection.recv(4096).startswith(b"HTTP/1.1 504 ")
        assert score(server) == 200


def test_client_that_disconnects_during_upload_causes_no_error(store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(store, log, model="digits-5", log_format="json") as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                connection.sendall(BEGUN_UPLOAD)
        assert score(server) == 200
    assert "Traceback" not in log.read_text()


class TestStoreChanges:
    @pytest.fixture
    def own_store(self, tmp_path: Path) -> ModelStore:
        store = ModelStore(tmp_path / "store")
        store.publish(*make_bundle("m", seed=1))
        return store

    @staticmethod
    def wait_for_version(server: Server, version: str) -> None:
        deadline = time.monotonic() + 60
        while server.client.get("/health").json()["model"]["version"] != version:
            assert time.monotonic() < deadline, "the service did not load the new version"
            assert score(server) == 200
            time.sleep(0.05)

    def test_new_version_is_loaded_and_rolled_back(self, own_store: ModelStore, tmp_path: Path) -> None:
        first = own_store.current("m")
        with running_server(own_store.root, tmp_path / "log", model="m") as server:
            manifest, files = make_bundle("m", seed=2)
            own_store.publish(manifest, files)
            self.wait_for_version(server, manifest.version)
            (own_store.root / "m" / "CURRENT").write_text(first)
            self.wait_for_version(server, first)

    def test_damaged_new_version_is_refused_and_the_old_one_still_serves(
        self, own_store: ModelStore, tmp_path: Path
    ) -> None:
        first = own_store.current("m")
        with running_server(own_store.root, tmp_path / "log", model="m") as server:
            broken = own_store.root / "m" / "broken"
            shutil.copytree(own_store.root / "m" / first, broken)
            (broken / "model.pt").write_bytes(b"oops")
            (broken.parent / "next").write_text("broken")
            (broken.parent / "next").replace(
                broken.parent / "CURRENT"
            )  # atomic: a partly written CURRENT would be refused too
            deadline = time.monotonic() + 60
            while not (refused := server.client.get("/health").json()["refused"]):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert refused[0]["name"] == "m"
            assert "belongs to another model or version" in refused[0]["reason"]
            assert server.client.get("/health").json()["status"] == "ok"
            assert score(server) == 200
            assert 'anomaly_model_refused{model="m"} 1.0' in server.client.get("/metrics").text
            assert server.client.get("/models/m").json()["version"] == first
            (own_store.root / "m" / "CURRENT").write_text(first)
            while server.client.get("/health").json()["refused"]:
                assert time.monotonic() < deadline + 15
                time.sleep(0.05)
            assert 'anomaly_model_refused{model="m"} 0.0' in server.client.get("/metrics").text

    def test_start_with_a_damaged_model_is_unavailable_until_repaired(
        self, own_store: ModelStore, tmp_path: Path
    ) -> None:
        model = own_store.root / "m" / own_store.current("m") / "model.pt"
        good = model.read_bytes()
        model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with running_server(own_store.root, tmp_path / "log", ready=False, model="m") as server:
            body = server.wait_for("/health", 503).json()
            while body["status"] == "starting":
                body = server.client.get("/health").json()
            assert body["status"] == "unavailable"
            assert "model.pt was changed" in body["reason"]
            assert server.client.get("/health/ready").status_code == 503
            assert server.client.get("/health/live").status_code == 200
            refused = server.client.post("/score", files={"file": PNG})
            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "1"
            assert "model.pt was changed" in refused.json()["detail"]
            assert [each["name"] for each in server.client.get("/models").json()["refused"]] == ["m"]
            model.write_bytes(good)
            server.wait_for("/health/ready", 200)
            assert score(server) == 200

    def test_start_with_an_empty_store_is_unavailable_until_published(self, tmp_path: Path) -> None:
        with running_server(tmp_path / "nothing", tmp_path / "log", ready=False, model="m") as server:
            assert "no model named 'm'" in server.wait_for("/health", 503).json()["reason"]
            assert score(server) == 503
            assert score(server, params={"model": "other"}) == 404
            assert server.client.get("/models").json()["models"] == []
            ModelStore(tmp_path / "nothing").publish(*make_bundle("m"))
            server.wait_for("/health/ready", 200)

    def test_model_removed_from_the_store_still_serves(self, own_store: ModelStore, tmp_path: Path) -> None:
        with running_server(own_store.root, tmp_path / "log", model="m") as server:
            shutil.rmtree(own_store.root / "m")
            deadline = time.monotonic() + 60
            while not server.client.get("/health").json()["refused"]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert score(server) == 200
