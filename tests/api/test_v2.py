"""The Open Inference Protocol, with clients that others wrote for it and with requests as no client would send them."""

import importlib.util
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http as triton
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from app import __version__
from app.api.inference_schemas import InferenceFailure, InferenceResponse
from app.inference.store import ModelStore
from tests.support import Server, SlowAutoencoder, make_bundle, running_server
from training.pipeline import Published

pytestmark = pytest.mark.no_cover  # the server's lines are counted, not those of what asks it

Digits = dict[int, list[bytes]]
Body = dict[str, Any]

INFER = "/v2/models/digits-5/infer"
OUTPUTS = ["reconstruction", "mse", "score", "p_value", "is_anomaly"]
BAD_RATES: list[Any] = [0, 1, -1, 2, "0.05", True, [], 1e-4, 1e-300]
MAX_FILES, MAX_BODY_BYTES = 8, 2**20  # as the server fixture sets them


def pixels(*files: bytes) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(io.BytesIO(file)), dtype=np.uint8)[None] for file in files])


@pytest.fixture(scope="module")
def pictures(digit_files: Digits) -> NDArray[np.uint8]:
    """A five and a seven."""
    return pixels(digit_files[5][0], digit_files[7][0])


def tensor(values: NDArray[Any], **changed: Any) -> Body:
    datatype = {"float32": "FP32", "uint8": "UINT8"}[values.dtype.name]
    whole = {"name": "image", "shape": list(values.shape), "datatype": datatype, "data": values.ravel().tolist()}
    return {key: value for key, value in {**whole, **changed}.items() if value is not None}


def infer(server: Server, *inputs: Body, path: str = INFER, **members: Any) -> httpx.Response:
    return server.client.post(path, json={"inputs": list(inputs), **members})


def send_binary(
    server: Server, head: Body, behind: bytes, *, length: str | None = None, path: str = INFER
) -> httpx.Response:
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)) if length is None else length}
    return server.client.post(path, content=text + behind, headers=headers)


def answered(response: httpx.Response) -> dict[str, Body]:
    """The outputs by name."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body = InferenceResponse.model_validate_json(response.content)
    assert body.model_name in response.request.url.path
    return {each["name"]: each for each in response.json()["outputs"]}


def refused(response: httpx.Response, status: int = 400) -> str:
    """The reason, in the protocol's shape of errors."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    reason = InferenceFailure.model_validate_json(response.content).error
    assert reason
    return reason


def scored(server: Server, *files: bytes, **query: Any) -> list[Body]:
    response = server.client.post(
        "/score", files=[("file", file) for file in files], params={"include": "", "model": "digits-5", **query}
    )
    results: list[Body] = response.json()["results"]
    return results


class TestMetadata:
    def test_server(self, server: Server) -> None:
        assert server.client.get("/v2").json() == {
            "name": "anomaly-service", "version": __version__, "extensions": ["binary_tensor_data"],
        }  # fmt: skip
        assert server.client.get("/v2/health/live").json() == {"live": True}
        assert server.client.get("/v2/health/ready").json() == {"ready": True}

    def test_model_and_version(self, server: Server, trained: Published) -> None:
        version = trained.manifest.version
        body = server.client.get("/v2/models/digits-5").json()
        assert body == server.client.get(f"/v2/models/digits-5/versions/{version}").json()
        assert (body["name"], body["versions"], body["platform"]) == ("digits-5", [version], "pytorch_torchscript")
        assert [(each["name"], each["datatype"], each["shape"]) for each in body["inputs"]] == [
            ("image", "FP32", [-1, 1, 8, 8])
        ]
        assert "UINT8" in body["inputs"][0]["parameters"]["accepts"]
        assert [(each["name"], each["datatype"], each["shape"]) for each in body["outputs"]] == [
            ("reconstruction", "FP32", [-1, 1, 8, 8]), ("mse", "FP64", [-1]), ("score", "FP64", [-1]),
            ("p_value", "FP64", [-1]), ("is_anomaly", "BOOL", [-1]),
        ]  # fmt: skip
        assert server.client.get("/v2/models/colour").json()["inputs"][0]["shape"] == [-1, 3, 8, 8]

    def test_ready(self, server: Server, trained: Published) -> None:
        for path in ("/v2/models/digits-5", f"/v2/models/digits-5/versions/{trained.manifest.version}"):
            assert server.client.get(f"{path}/ready").json() == {"name": "digits-5", "ready": True}

    def test_only_the_served_version_exists(
        self, server: Server, trained: Published, pictures: NDArray[np.uint8]
    ) -> None:
        for path in ("/v2/models/digits-5/versions/1", "/v2/models/digits-5/versions/1/ready"):
            assert trained.manifest.version in refused(server.client.get(path), 404)
        versioned = "/v2/models/digits-5/versions/{}/infer"
        refused(infer(server, tensor(pictures), path=versioned.format("1")), 404)
        answered(infer(server, tensor(pictures), path=versioned.format(trained.manifest.version)))

    def test_a_query_names_no_version(self, server: Server) -> None:
        assert server.client.get("/v2/models/digits-5?version=1").status_code == 200

    def test_unknown_models_routes_and_methods(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        for path in ("/v2/models/nothing", "/v2/models/nothing/ready", "/v2/models/nothing/versions/1"):
            assert "'nothing'" in refused(server.client.get(path), 404)
        assert "'nothing'" in refused(infer(server, tensor(pictures), path="/v2/models/nothing/infer"), 404)
        for path in ("/v2/", "/v2/models/digits-5/config", "/v2/models/..%2f..%2fetc", "/v2/repository/index"):
            refused(server.client.get(path), 404)
        response = server.client.get(INFER)
        refused(response, 405)
        assert response.headers["allow"] == "POST"

    def test_other_routes_keep_their_problem_documents(self, server: Server) -> None:
        for path in ("/v2beta", "/models/nothing", "/v"):
            assert server.client.get(path).headers["content-type"] == "application/problem+json"


class TestSameAsScore:
    """A picture through both routes: equal numbers, to the last bit."""

    @pytest.mark.parametrize("digit", range(10))
    def test_one_picture(self, server: Server, digit_files: Digits, digit: int) -> None:
        file = digit_files[digit][0]
        picture = pixels(file)
        (expected,) = scored(server, file)
        for values in (picture, picture.astype(np.float32) / np.float32(255)):
            outputs = answered(infer(server, tensor(values)))
            for name in ("mse", "score", "p_value", "is_anomaly"):
                assert outputs[name]["shape"] == [1]
                assert outputs[name]["data"] == [expected[name]]

    def test_several(self, server: Server, digit_files: Digits) -> None:
        files = [digit_files[digit][1] for digit in range(MAX_FILES)]
        expected = scored(server, *files)
        assert {each["is_anomaly"] for each in expected} == {True, False}
        outputs = answered(infer(server, tensor(pixels(*files))))
        for name in ("mse", "score", "p_value", "is_anomaly"):
            assert outputs[name]["data"] == [each[name] for each in expected]

    def test_the_rate_decides(self, server: Server, digit_files: Digits, trained: Published) -> None:
        files = [digit_files[5][index] for index in range(MAX_FILES)]
        for rate in (0.05, 0.1, 0.5, 0.9):
            expected = server.client.post(
                "/score", files=[("file", file) for file in files], params={"include": "", "false_alarm_rate": rate}
            ).json()
            response = infer(server, tensor(pixels(*files)), parameters={"false_alarm_rate": rate})
            assert response.json()["parameters"] == {"threshold": expected["threshold"], "false_alarm_rate": rate}
            assert answered(response)["is_anomaly"]["data"] == [each["is_anomaly"] for each in expected["results"]]
        default = infer(server, tensor(pixels(*files))).json()["parameters"]
        assert default == {"threshold": trained.manifest.threshold, "false_alarm_rate": 0.05}

    def test_colour(self, server: Server) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        (expected,) = scored(server, file.getvalue(), model="colour")
        values = picture.transpose(2, 0, 1)[None]
        outputs = answered(infer(server, tensor(values), path="/v2/models/colour/infer"))
        assert outputs["reconstruction"]["shape"] == [1, 3, 8, 8]
        assert (outputs["mse"]["data"], outputs["score"]["data"]) == ([expected["mse"]], [expected["score"]])

    def test_mse_is_that_of_the_reconstruction(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        outputs = answered(infer(server, tensor(pictures)))
        rebuilt = np.array(outputs["reconstruction"]["data"]).reshape(outputs["reconstruction"]["shape"])
        mse = ((pictures / 255 - rebuilt) ** 2).mean(axis=(1, 2, 3))
        assert outputs["mse"]["data"] == pytest.approx(mse.tolist(), rel=1e-5)


class TestRequests:
    def test_without_outputs_all_come(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        assert list(answered(infer(server, tensor(pictures)))) == OUTPUTS
        assert list(answered(infer(server, tensor(pictures), outputs=[]))) == OUTPUTS

    def test_requested_ones_alone_come_in_their_order(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        wanted = [{"name": "p_value"}, {"name": "mse"}]
        assert list(answered(infer(server, tensor(pictures), outputs=wanted))) == ["p_value", "mse"]

    def test_the_id_comes_back(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        assert infer(server, tensor(pictures), id="größe 5").json()["id"] == "größe 5"
        assert infer(server, tensor(pictures), id="").json()["id"] == ""
        assert "id" not in infer(server, tensor(pictures)).json()

    def test_nested_data(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        nested = infer(server, tensor(pictures, data=pictures.tolist()))
        assert answered(nested) == answered(infer(server, tensor(pictures)))
        most = np.zeros((MAX_FILES, 3, 8, 8), np.uint8)
        answered(infer(server, tensor(most, data=most.tolist()), path="/v2/models/colour/infer"))

    def test_more_lists_than_pictures_can_need(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        assert "lists" in refused(infer(server, tensor(pictures, data=[[]] * 2000)))
        assert "lists" not in refused(infer(server, tensor(pictures, data=[[]] * 500)))

    def test_what_is_not_known_is_ignored(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        response = infer(
            server, tensor(pictures, parameters={"tag": 1}), model_name="x", parameters={"priority": 3, "timeout": 1},
            outputs=[{"name": "mse", "parameters": {"classification": 2}}],
        )  # fmt: skip
        assert list(answered(response)) == ["mse"]

    @pytest.mark.parametrize(
        "members",
        [
            {"id": 7}, {"parameters": []}, {"outputs": {}}, {"outputs": [{"name": "heatmap"}]}, {"outputs": [{}]},
            {"outputs": ["mse"]}, {"outputs": [{"name": "mse"}] * 6},
            {"parameters": {"binary_data_output": 1}}, {"outputs": [{"name": "mse", "parameters": {"binary_data": 1}}]},
            *({"parameters": {"false_alarm_rate": rate}} for rate in BAD_RATES),
        ],
        ids=repr,
    )  # fmt: skip
    def test_members_that_make_no_sense(self, server: Server, pictures: NDArray[np.uint8], members: Body) -> None:
        refused(infer(server, tensor(pictures), **members))

    def test_a_rate_finer_than_the_calibration_supports_says_what_it_takes(
        self, server: Server, pictures: NDArray[np.uint8]
    ) -> None:
        response = infer(server, tensor(pictures), parameters={"false_alarm_rate": 0.0001})
        assert "needs at least 9999 calibration images" in refused(response)

    @pytest.mark.parametrize(
        "changed",
        [
            {"name": "input"}, {"name": None}, {"datatype": "FP64"}, {"datatype": "fp32"}, {"datatype": None},
            {"shape": None}, {"shape": [2, 64]}, {"shape": [2, 1, 8]}, {"shape": [2, 1, 8, 8, 1]}, {"shape": "2188"},
            {"shape": [2, 1, 8, 7]}, {"shape": [2, 8, 8, 1]}, {"shape": [2, 3, 8, 8]}, {"shape": [0, 1, 8, 8]},
            {"shape": [-2, 1, 8, 8]}, {"shape": [-1, 1, 8, 8]}, {"shape": [2, -1, -8, 8]}, {"shape": [2.0, 1, 8, 8]},
            {"shape": [1, 1, 8, 8]}, {"shape": [3, 1, 8, 8]}, {"shape": [True, 1, 8, 8]}, {"shape": [2**70, 1, 8, 8]},
            {"data": None}, {"data": []}, {"data": 5}, {"data": {}}, {"data": "0" * 128}, {"data": [0] * 127},
            {"data": [0] * 129}, {"data": [[0] * 64] * 2}, {"data": [[[[0] * 8] * 8]]}, {"data": [[]]},
            {"data": [[[[0] * 8] * 7 + [[0] * 9]]] * 2}, {"data": [0] * 127 + [[0]]},
            {"data": [[[[0] * 8] * 7 + [0]]] * 2}, {"parameters": {"binary_data_size": "128"}},
        ],
        ids=lambda changed: repr(changed)[:40],
    )  # fmt: skip
    def test_tensors_that_do_not_fit(self, server: Server, pictures: NDArray[np.uint8], changed: Body) -> None:
        refused(infer(server, tensor(pictures, **changed)))

    @pytest.mark.parametrize(
        ("datatype", "bad"),
        [
            *itertools.product(["UINT8"], [-1, 256, 2**40, 2**64, 5.0, 0.5, True, None, "5", [5], {}]),
            *itertools.product(["FP32"], [-0.001, 1.001, 255, 1e39, -1e300, 2**64, True, None, "0.5", [0.5], {}]),
        ],
    )
    def test_values_out_of_range(self, server: Server, datatype: str, bad: object) -> None:
        good = infer(server, tensor(np.zeros((1, 1, 8, 8), np.uint8), datatype=datatype, data=[0] * 63 + [1]))
        assert good.status_code == 200
        body = tensor(np.zeros((1, 1, 8, 8), np.uint8), datatype=datatype, data=[0] * 63 + [bad])
        assert "image" in refused(infer(server, body))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-6, 1.0001])
    def test_binary_values_out_of_range(self, server: Server, bad: float) -> None:
        values = np.zeros((1, 1, 8, 8), np.float32)
        values[0, 0, 3, 4] = bad
        head = {"inputs": [tensor(values, data=None, parameters={"binary_data_size": values.nbytes})]}
        assert "[0, 1]" in refused(send_binary(server, head, values.tobytes()))

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"{", b"null", b"[]", b"5", b'"x"', b"\xff\xfe", b'{"inputs": NaN}', b"[" * 5000, b"{}",
            b'{"inputs": []}', b'{"inputs": {}}', b'{"inputs": null}', b'{"inputs": [null]}', b'{"id": "\\ud800"}',
            b'{"inputs": [' + b"{}," * 100_000 + b"{}]}", b'{"inputs": [' + b"[]," * 100_000 + b"[]]}",
        ],
        ids=lambda body: repr(body)[:30],
    )  # fmt: skip
    def test_bodies_that_are_no_request(self, server: Server, body: bytes) -> None:
        assert len(refused(server.client.post(INFER, content=body))) < 300

    def test_two_tensors(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        refused(infer(server, tensor(pictures), tensor(pictures)))

    def test_a_compressed_body(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        response = server.client.post(INFER, content=b"x", headers={"Content-Encoding": "gzip"})
        assert "gzip" in refused(response, 415)


class TestBinary:
    def test_in_and_out_and_mixed(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        expected = answered(infer(server, tensor(pictures)))
        head = {
            "inputs": [tensor(pictures, data=None, parameters={"binary_data_size": pictures.nbytes})],
            "parameters": {"binary_data_output": True},
            "outputs": [
                {"name": "score"},
                {"name": "mse", "parameters": {"binary_data": False}},
                {"name": "is_anomaly", "parameters": {"binary_data": True}},
                {"name": "reconstruction"},
            ],
        }
        response = send_binary(server, head, pictures.tobytes())
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/octet-stream"
        length = int(response.headers["Inference-Header-Content-Length"])
        outputs = json.loads(response.content[:length])["outputs"]
        InferenceResponse.model_validate_json(response.content[:length])
        sizes = [each.get("parameters", {}).get("binary_data_size") for each in outputs]
        assert sizes == [16, None, 2, 512]
        assert [("data" in each) for each in outputs] == [False, True, False, False]
        assert len(response.content) == length + 16 + 2 + 512
        behind = response.content[length:]
        assert np.frombuffer(behind[:16], "<f8").tolist() == expected["score"]["data"]
        assert outputs[1]["data"] == expected["mse"]["data"]
        assert behind[16:18] == bytes(expected["is_anomaly"]["data"])
        assert np.array_equal(
            np.frombuffer(behind[18:], "<f4"), np.array(expected["reconstruction"]["data"], np.float32)
        )

    def test_binary_in_json_out(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        for values in (pictures, pictures.astype(np.float32) / np.float32(255)):
            head = {"inputs": [tensor(values, data=None, parameters={"binary_data_size": values.nbytes})]}
            response = send_binary(server, head, values.tobytes())
            assert "Inference-Header-Content-Length" not in response.headers
            assert answered(response) == answered(infer(server, tensor(pictures)))

    def test_the_header_may_tell_of_a_body_that_is_json_alone(
        self, server: Server, pictures: NDArray[np.uint8]
    ) -> None:
        answered(send_binary(server, {"inputs": [tensor(pictures)]}, b""))

    @pytest.mark.parametrize("length", ["0", "-1", "+5", "1e3", "", "x", "999999", "9" * 5000, "10", "²"])
    def test_lengths_that_are_wrong(self, server: Server, pictures: NDArray[np.uint8], length: str) -> None:
        head = json.dumps({"inputs": [tensor(pictures, data=None, parameters={"binary_data_size": pictures.nbytes})]})
        header = {b"Inference-Header-Content-Length": length.encode()}
        refused(server.client.post(INFER, content=head.encode() + pictures.tobytes(), headers=header))

    @pytest.mark.parametrize("size", [0, 1, 127, 129, -1, -128, 2**62, 2**80, 128.0, True])
    def test_sizes_that_are_wrong(self, server: Server, pictures: NDArray[np.uint8], size: Any) -> None:
        head = {"inputs": [tensor(pictures, data=None, parameters={"binary_data_size": size})]}
        refused(send_binary(server, head, pictures.tobytes()))

    @pytest.mark.parametrize("cut", [slice(0, 0), slice(0, 127), slice(0, 129)])
    def test_bytes_that_are_missing_or_too_many(self, server: Server, pictures: NDArray[np.uint8], cut: slice) -> None:
        head = {"inputs": [tensor(pictures, data=None, parameters={"binary_data_size": 128})]}
        assert "follow the JSON object" in refused(send_binary(server, head, (pictures.tobytes() + b"x")[cut]))

    def test_bytes_that_belong_to_no_tensor(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        assert "1 bytes follow" in refused(send_binary(server, {"inputs": [tensor(pictures)]}, b"x"))

    def test_data_twice(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        head = {"inputs": [tensor(pictures, parameters={"binary_data_size": 128})]}
        assert "both" in refused(send_binary(server, head, pictures.tobytes()))

    def test_a_size_without_the_header(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        body = tensor(pictures, data=None, parameters={"binary_data_size": 128})
        assert "Inference-Header-Content-Length" in refused(infer(server, body))


class TestLimits:
    def test_pictures(self, server: Server) -> None:
        answered(infer(server, tensor(np.zeros((MAX_FILES, 1, 8, 8), np.uint8))))
        reason = refused(infer(server, tensor(np.zeros((MAX_FILES + 1, 1, 8, 8), np.uint8))), 413)
        assert reason == "one request may carry 8 pictures, this one has 9"
        refused(infer(server, tensor(np.zeros((1, 1, 8, 8), np.uint8), shape=[10**9, 1, 8, 8])), 413)

    def test_bytes(self, server: Server, pictures: NDArray[np.uint8]) -> None:
        text = json.dumps({"inputs": [tensor(pictures)]}).encode()
        assert server.client.post(INFER, content=text.ljust(MAX_BODY_BYTES)).status_code == 200
        refused(server.client.post(INFER, content=text.ljust(MAX_BODY_BYTES + 1)), 413)

        def chunks() -> Iterator[bytes]:
            for _ in range(MAX_BODY_BYTES // 2**16 + 1):
                yield bytes(2**16)

        refused(server.client.post(INFER, content=chunks()), 413)


def test_pictures_are_counted_and_logged(server: Server, pictures: NDArray[np.uint8]) -> None:
    def count(line: str) -> float:
        for found in server.client.get("/metrics").text.splitlines():
            if found.startswith(line + " "):
                return float(found.split()[-1])
        return 0.0

    names = [
        'anomaly_images_total{model="digits-5",verdict="normal"}',
        'anomaly_images_total{model="digits-5",verdict="anomaly"}',
        'anomaly_p_value_count{model="digits-5"}',
        'anomaly_batch_size_sum{model="digits-5"}',
        'anomaly_requests_total{method="POST",route="/v2/models/{name}/infer",status="200"}',
    ]
    before = [count(name) for name in names]
    response = infer(server, tensor(pictures))
    anomalies = sum(answered(response)["is_anomaly"]["data"])
    assert [after - then for after, then in zip(map(count, names), before, strict=True)] == [
        2 - anomalies, anomalies, 2, 2, 1,
    ]  # fmt: skip
    assert count("anomaly_queue_depth") == 0
    lines = [json.loads(each) for each in server.log.read_text().splitlines()]
    (line,) = [each for each in lines if each.get("request_id") == response.headers["X-Request-ID"]]
    assert (line["anomaly"], line["normal"], line["model"]) == (anomalies, 2 - anomalies, "digits-5")


class Fragile(torch.nn.Module):
    """Rebuilds every picture but one with a white corner."""

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

    def test_a_picture_that_gets_no_score_fails_its_request(self, strict: Server) -> None:
        pictures = GREY.copy()
        path = "/v2/models/fragile/infer"
        assert strict.client.post(path, json={"inputs": [tensor(pictures)]}, headers=KEY).status_code == 200
        pictures[2, 0, 0, 0:4] = 255
        response = strict.client.post(path, json={"inputs": [tensor(pictures)]}, headers=KEY)
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


class TestTriton:
    """NVIDIA's client for Triton."""

    @pytest.fixture
    def client(self, server: Server) -> Iterator[triton.InferenceServerClient]:
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            yield client

    def test_it_finds_the_server_and_the_model(self, client: triton.InferenceServerClient, trained: Published) -> None:
        version = trained.manifest.version
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits-5")
        assert client.is_model_ready("digits-5", version)
        assert not client.is_model_ready("digits-5", "1")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert client.get_model_metadata("digits-5", version)["platform"] == "pytorch_torchscript"

    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False, None])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_it_scores(
        self, client: triton.InferenceServerClient, server: Server, digit_files: Digits,
        dtype: type[Any], binary_in: bool, binary_out: bool | None,
    ) -> None:  # fmt: skip
        files = (digit_files[5][2], digit_files[1][2])
        values = pixels(*files) if dtype is np.uint8 else pixels(*files).astype(np.float32) / np.float32(255)
        tensor = triton.InferInput("image", list(values.shape), "UINT8" if dtype is np.uint8 else "FP32")
        tensor.set_data_from_numpy(values, binary_data=binary_in)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in OUTPUTS]
        result = client.infer(
            "digits-5", [tensor], request_id="t-1", outputs=None if binary_out is None else wanted,
            parameters={"false_alarm_rate": 0.5},
        )  # fmt: skip
        assert result.get_response()["id"] == "t-1"
        for name in ("mse", "score", "p_value", "is_anomaly"):
            expected = [each[name] for each in scored(server, *files, false_alarm_rate=0.5)]
            assert result.as_numpy(name).tolist() == expected
        rebuilt = result.as_numpy("reconstruction")
        assert (rebuilt.shape, rebuilt.dtype) == ((2, 1, 8, 8), np.float32)
        mse = ((values / (255 if dtype is np.uint8 else 1) - rebuilt) ** 2).mean(axis=(1, 2, 3))
        assert result.as_numpy("mse") == pytest.approx(mse, rel=1e-5)

    def test_it_understands_errors(self, client: triton.InferenceServerClient) -> None:
        tensor = triton.InferInput("image", [1, 1, 9, 9], "UINT8")
        tensor.set_data_from_numpy(np.zeros((1, 1, 9, 9), np.uint8))
        with pytest.raises(InferenceServerException, match=r"the model takes \[-1, 1, 8, 8\]") as caught:
            client.infer("digits-5", [tensor])
        assert caught.value.status() == "400"
        with pytest.raises(InferenceServerException, match="no model named 'nothing'"):
            client.get_model_metadata("nothing")


def kserve_python() -> str:
    """The interpreter that has the ``kserve`` package: it pins libraries that ours have newer, and lives apart."""
    given = os.environ.get("KSERVE_PYTHON")
    if given is None and importlib.util.find_spec("kserve") is None:
        pytest.skip("no kserve here; KSERVE_PYTHON can name the interpreter of an environment that has it")
    return given or sys.executable


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_kserve(server: Server, digit_files: Digits, tmp_path: Path, dtype: type[Any]) -> None:
    """KServe's client."""
    python, files = kserve_python(), (digit_files[5][3], digit_files[8][3])
    values = pixels(*files) if dtype is np.uint8 else pixels(*files).astype(np.float32) / np.float32(255)
    np.save(tmp_path / "pictures.npy", values)
    script = Path(__file__).with_name("kserve_client.py")
    arguments = [f"http://127.0.0.1:{server.port}", "digits-5", str(tmp_path / "pictures.npy"), "0.5"]
    done = subprocess.run([python, str(script), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["live"], seen["ready"], seen["model_ready"], seen["nothing_ready"]) == (True, True, True, False)
    assert "there is no model named 'nothing', '404 Not Found'" in seen["refusal"]
    expected = scored(server, *files)
    for answer in (seen["json"], seen["binary"]):
        assert answer["id"] == "from-kserve"
        assert list(answer["outputs"]) == OUTPUTS
        for name in ("mse", "score", "p_value", "is_anomaly"):
            assert answer["outputs"][name] == [each[name] for each in expected]
    assert seen["json"]["outputs"]["reconstruction"] == seen["binary"]["outputs"]["reconstruction"]
    half = scored(server, *files, false_alarm_rate=0.5)
    assert seen["mixed"]["parameters"]["false_alarm_rate"] == 0.5
    assert seen["mixed"]["outputs"] == {name: [each[name] for each in half] for name in ("score", "is_anomaly")}
