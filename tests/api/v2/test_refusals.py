"""The Open Inference Protocol where something is in the way: a key, a full queue, a deadline, no model, the end."""

import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from app.inference.bundles.store import ModelStore
from tests.api.v2.conftest import infer, refused, tensor
from tests.support import Server, SlowAutoencoder, make_bundle, running_server

pytestmark = pytest.mark.no_cover  # the server's lines are counted, not those of what asks it


class Fragile(torch.nn.Module):
    """Rebuilds every image but one with a white corner."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        corner = images[:, :, 0, 0:4].sum(dim=(1, 2)) == 4
        return torch.where(corner.reshape(-1, 1, 1, 1), torch.full_like(images, float("nan")), images * self.weight)


KEY = {"X-API-Key": "secret"}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key, a short deadline and a short queue, and models that are slow and fragile."""
    directory = tmp_path_factory.mktemp("strict")
    store = ModelStore(directory / "store")
    store.publish(*make_bundle("slow", network=SlowAutoencoder(400)))
    store.publish(*make_bundle("fragile", network=Fragile()))
    with running_server(
        store.root, directory / "log", model="slow", api_keys="secret", request_timeout_s=2, max_files=4, queue_size=4,
        drain_s=2,
    ) as server:  # fmt: skip
        yield server


GREY = np.full((4, 1, 8, 8), 128, np.uint8)


class TestRefusalsUnderWay:
    def test_a_key_opens_all_but_health(self, strict: Server) -> None:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert strict.client.get(path).status_code == 200
        for path in ("/v2", "/v2/models/slow", "/v2/models/slow/ready", "/v2/healthy"):
            response = strict.client.get(path)
            assert "X-API-Key" in refused(response, 401)
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert strict.client.get("/v2/models/slow", headers=KEY).status_code == 200

    def test_a_full_queue(self, strict: Server) -> None:
        def send(_: int) -> httpx.Response:
            return strict.client.post("/v2/models/slow/infer", json={"inputs": [tensor(GREY)]}, headers=KEY)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(send, range(16)))
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert "4 is the limit" in refused(answer, 429)
                assert answer.headers["Retry-After"] == "1"

    def test_a_slow_upload(self, strict: Server) -> None:
        with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as connection:
            connection.sendall(
                b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nX-API-Key: secret\r\n"
                b"Connection: close\r\nContent-Length: 1000\r\n\r\n{"
            )
            answer = b""
            while received := connection.recv(4096):
                answer += received
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert answer.endswith(b'{"error":"the request took longer than 2 s, upload included"}')

    def test_a_image_that_gets_no_score_fails_its_request(self, strict: Server) -> None:
        images = GREY.copy()
        path = "/v2/models/fragile/infer"
        assert strict.client.post(path, json={"inputs": [tensor(images)]}, headers=KEY).status_code == 200
        images[2, 0, 0, 0:4] = 255
        response = strict.client.post(path, json={"inputs": [tensor(images)]}, headers=KEY)
        assert "nan" in refused(response)
        metrics = strict.client.get("/metrics", headers=KEY).text
        assert 'anomaly_rejected_total{reason="non-finite-score"} 1.0' in metrics
        assert 'anomaly_images_total{model="fragile",verdict="normal"} 7.0' in metrics

    def test_while_it_drains_it_is_not_ready(self, strict: Server) -> None:
        """The last one: afterwards the server ends."""
        strict.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 1.5
        while strict.client.get("/v2/health/ready").status_code == 200:
            assert time.monotonic() < deadline
        ready = strict.client.get("/v2/health/ready")
        model = strict.client.get("/v2/models/slow/ready", headers=KEY)
        sent = strict.client.post("/v2/models/slow/infer", json={"inputs": [tensor(GREY)]}, headers=KEY)
        for response in (ready, model, sent):
            assert refused(response, 503) == "the service is shutting down"
            assert response.headers["Retry-After"] == "1"
        assert strict.client.get("/v2/health/live").json() == {"live": True}


def test_nothing_to_serve_is_not_ready_and_a_new_version_takes_the_old_ones_place(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    with running_server(store.root, tmp_path / "log", ready=False, model="m") as server:
        response = server.wait_for("/v2/health/ready", 503)
        assert response.headers["Retry-After"] == "1"
        refused(response, 503)
        refused(infer(server, tensor(GREY), path="/v2/models/m/infer"), 503)
        versions = []
        for seed in (1, 2):
            manifest, files = make_bundle("m", seed=seed)
            store.publish(manifest, files)
            versions.append(f"/v2/models/m/versions/{manifest.version}")
            server.wait_for(f"{versions[-1]}/ready", 200)
        for end in ("", "/ready"):
            refused(server.client.get(versions[0] + end), 404)
        refused(infer(server, tensor(GREY), path=f"{versions[0]}/infer"), 404)
        assert infer(server, tensor(GREY), path=f"{versions[1]}/infer").status_code == 200
