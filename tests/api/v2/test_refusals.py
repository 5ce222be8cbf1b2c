"""Errors of the Open Inference Protocol: API key, full queue, timeout, missing model, shutdown."""

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
from tests.api.v2.conftest import error_of, infer, tensor
from tests.support import Server, SlowAutoencoder, make_bundle, running_server

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process


class NanForWhiteCorner(torch.nn.Module):
    """Returns every image unchanged, except that it returns NaN for images with a white corner."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        corner = images[:, :, 0, 0:4].sum(dim=(1, 2)) == 4
        return torch.where(corner.reshape(-1, 1, 1, 1), torch.full_like(images, float("nan")), images * self.weight)


KEY = {"X-API-Key": "secret"}


@pytest.fixture(scope="module")
def limited_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an API key, a short timeout and a short queue, a slow model and one that can return NaN."""
    directory = tmp_path_factory.mktemp("limited")
    store = ModelStore(directory / "store")
    store.publish(*make_bundle("slow", network=SlowAutoencoder(400)))
    store.publish(*make_bundle("nan", network=NanForWhiteCorner()))
    with running_server(
        store.root, directory / "log", model="slow", api_keys="secret", request_timeout_s=2, max_files=4, queue_size=4,
        drain_s=2,
    ) as server:  # fmt: skip
        yield server


GREY = np.full((4, 1, 8, 8), 128, np.uint8)


class TestLimitedServer:
    def test_v2_requires_a_key_except_for_health(self, limited_server: Server) -> None:
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert limited_server.client.get(path).status_code == 200
        for path in ("/v2", "/v2/models/slow", "/v2/models/slow/ready", "/v2/healthy"):
            response = limited_server.client.get(path)
            assert "X-API-Key" in error_of(response, 401)
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert limited_server.client.get("/v2/models/slow", headers=KEY).status_code == 200

    def test_v2_full_queue_is_429(self, limited_server: Server) -> None:
        def send(_: int) -> httpx.Response:
            return limited_server.client.post("/v2/models/slow/infer", json={"inputs": [tensor(GREY)]}, headers=KEY)

        with ThreadPoolExecutor(16) as pool:
            responses = list(pool.map(send, range(16)))
        assert {response.status_code for response in responses} == {200, 429}
        for response in responses:
            if response.status_code == 429:
                assert "4 is the limit" in error_of(response, 429)
                assert response.headers["Retry-After"] == "1"

    def test_v2_slow_upload_is_504(self, limited_server: Server) -> None:
        with socket.create_connection(("127.0.0.1", limited_server.port), timeout=10) as connection:
            connection.sendall(
                b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: localhost\r\nX-API-Key: secret\r\n"
                b"Connection: close\r\nContent-Length: 1000\r\n\r\n{"
            )
            answer = b""
            while received := connection.recv(4096):
                answer += received
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert answer.endswith(b'{"error":"the request took longer than 2 s, upload included"}')

    def test_image_without_a_finite_score_fails_the_request(self, limited_server: Server) -> None:
        images = GREY.copy()
        path = "/v2/models/nan/infer"
        assert limited_server.client.post(path, json={"inputs": [tensor(images)]}, headers=KEY).status_code == 200
        images[2, 0, 0, 0:4] = 255
        response = limited_server.client.post(path, json={"inputs": [tensor(images)]}, headers=KEY)
        assert "nan" in error_of(response)
        metrics = limited_server.client.get("/metrics", headers=KEY).text
        assert 'anomaly_rejected_total{reason="non-finite-score"} 1.0' in metrics
        assert 'anomaly_images_total{model="nan",verdict="normal"} 7.0' in metrics

    def test_v2_is_not_ready_while_draining(self, limited_server: Server) -> None:
        """Must be the last test, since the server stops."""
        limited_server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 1.5
        while limited_server.client.get("/v2/health/ready").status_code == 200:
            assert time.monotonic() < deadline
        ready = limited_server.client.get("/v2/health/ready")
        model = limited_server.client.get("/v2/models/slow/ready", headers=KEY)
        sent = limited_server.client.post("/v2/models/slow/infer", json={"inputs": [tensor(GREY)]}, headers=KEY)
        for response in (ready, model, sent):
            assert error_of(response, 503) == "the service is shutting down"
            assert response.headers["Retry-After"] == "1"
        assert limited_server.client.get("/v2/health/live").json() == {"live": True}


def test_v2_is_not_ready_without_a_model_and_serves_only_the_current_version(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    with running_server(store.root, tmp_path / "log", ready=False, model="m") as server:
        response = server.wait_for("/v2/health/ready", 503)
        assert response.headers["Retry-After"] == "1"
        error_of(response, 503)
        error_of(infer(server, tensor(GREY), path="/v2/models/m/infer"), 503)
        versions = []
        for seed in (1, 2):
            manifest, files = make_bundle("m", seed=seed)
            store.publish(manifest, files)
            versions.append(f"/v2/models/m/versions/{manifest.version}")
            server.wait_for(f"{versions[-1]}/ready", 200)
        for end in ("", "/ready"):
            error_of(server.client.get(versions[0] + end), 404)
        error_of(infer(server, tensor(GREY), path=f"{versions[0]}/infer"), 404)
        assert infer(server, tensor(GREY), path=f"{versions[1]}/infer").status_code == 200
