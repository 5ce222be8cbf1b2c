"""The Open Inference Protocol: metadata, and inference with JSON tensors."""

import gzip
import io
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app import __version__
from tests.api.v2.conftest import (
    INFER,
    OUTPUTS,
    Body,
    Digits,
    error_of,
    infer,
    outputs_of,
    pixels,
    scored,
    send_binary,
    tensor,
)
from tests.support import Server
from training.run import Published

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process
BAD_RATES: list[Any] = [0, 1, -1, 2, "0.05", True, [], 1e-4, 1e-300]
MAX_FILES, MAX_BODY_BYTES = 8, 2**20  # settings of the server fixture


class TestMetadata:
    def test_server_metadata_and_health(self, server: Server) -> None:
        assert server.client.get("/v2").json() == {
            "name": "anomaly-service", "version": __version__, "extensions": ["binary_tensor_data"],
        }  # fmt: skip
        assert server.client.get("/v2/health/live").json() == {"live": True}
        assert server.client.get("/v2/health/ready").json() == {"ready": True}

    def test_model_and_version_metadata(self, server: Server, trained: Published) -> None:
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
            ("p_value", "FP64", [-1]), ("is_anomaly", "BOOL", [-1]), ("error_map", "FP32", [-1, 1, 8, 8]),
            ("out_of_scope", "BOOL", [-1]),
        ]  # fmt: skip
        assert server.client.get("/v2/models/colour").json()["inputs"][0]["shape"] == [-1, 3, 8, 8]

    def test_model_and_version_ready(self, server: Server, trained: Published) -> None:
        for path in ("/v2/models/digits-5", f"/v2/models/digits-5/versions/{trained.manifest.version}"):
            assert server.client.get(f"{path}/ready").json() == {"name": "digits-5", "ready": True}

    def test_other_version_is_404(self, server: Server, trained: Published, images: NDArray[np.uint8]) -> None:
        for path in ("/v2/models/digits-5/versions/1", "/v2/models/digits-5/versions/1/ready"):
            assert trained.manifest.version in error_of(server.client.get(path), 404)
        versioned = "/v2/models/digits-5/versions/{}/infer"
        error_of(infer(server, tensor(images), path=versioned.format("1")), 404)
        outputs_of(infer(server, tensor(images), path=versioned.format(trained.manifest.version)))

    def test_version_in_the_query_is_ignored(self, server: Server) -> None:
        assert server.client.get("/v2/models/digits-5?version=1").status_code == 200

    def test_unknown_models_routes_and_methods_are_404_or_405(self, server: Server, images: NDArray[np.uint8]) -> None:
        for path in ("/v2/models/nothing", "/v2/models/nothing/ready", "/v2/models/nothing/versions/1"):
            assert "'nothing'" in error_of(server.client.get(path), 404)
        assert "'nothing'" in error_of(infer(server, tensor(images), path="/v2/models/nothing/infer"), 404)
        for path in ("/v2/", "/v2/models/digits-5/config", "/v2/models/..%2f..%2fetc", "/v2/repository/index"):
            error_of(server.client.get(path), 404)
        response = server.client.get(INFER)
        error_of(response, 405)
        assert response.headers["allow"] == "POST"

    def test_routes_outside_v2_return_problem_documents(self, server: Server) -> None:
        for path in ("/v2beta", "/models/nothing", "/v"):
            assert server.client.get(path).headers["content-type"] == "application/problem+json"


class TestSameAsScore:
    """An image has bit-identical results through both routes."""

    @pytest.mark.parametrize("digit", range(10))
    def test_one_image_equals_score(self, server: Server, digit_files: Digits, digit: int) -> None:
        file = digit_files[digit][0]
        image = pixels(file)
        (expected,) = scored(server, file)
        for values in (image, image.astype(np.float32) / np.float32(255)):
            outputs = outputs_of(infer(server, tensor(values)))
            for name in ("mse", "score", "p_value", "is_anomaly"):
                assert outputs[name]["shape"] == [1]
                assert outputs[name]["data"] == [expected[name]]

    def test_several_images_equal_score(self, server: Server, digit_files: Digits) -> None:
        files = [digit_files[digit][1] for digit in range(MAX_FILES)]
        expected = scored(server, *files)
        assert {each["is_anomaly"] for each in expected} == {True, False}
        outputs = outputs_of(infer(server, tensor(pixels(*files))))
        for name in ("mse", "score", "p_value", "is_anomaly"):
            assert outputs[name]["data"] == [each[name] for each in expected]

    def test_false_alarm_rate_equals_score(self, server: Server, digit_files: Digits, trained: Published) -> None:
        files = [digit_files[5][index] for index in range(MAX_FILES)]
        for rate in (0.05, 0.1, 0.5, 0.9):
            expected = server.client.post(
                "/score", files=[("file", file) for file in files], params={"include": "", "false_alarm_rate": rate}
            ).json()
            response = infer(server, tensor(pixels(*files)), parameters={"false_alarm_rate": rate})
            assert response.json()["parameters"] == {"threshold": expected["threshold"], "false_alarm_rate": rate}
            assert outputs_of(response)["is_anomaly"]["data"] == [each["is_anomaly"] for each in expected["results"]]
        default = infer(server, tensor(pixels(*files))).json()["parameters"]
        assert default == {"threshold": trained.manifest.threshold, "false_alarm_rate": 0.05}

    def test_fdr_equals_score(self, server: Server, digit_files: Digits, trained: Published) -> None:
        files = [digit_files[digit][0] for digit in (5, 0, 1, 2, 3, 4, 6)]
        rate = 2 / (len(trained.manifest.calibration.scores) + 1)
        expected = server.client.post(
            "/score", files=[("file", file) for file in files], params={"include": "", "fdr": rate}
        ).json()
        response = infer(server, tensor(pixels(*files)), parameters={"fdr": rate})
        parameters = {"threshold": expected["threshold"], "false_alarm_rate": None, "fdr": rate}
        assert response.json()["parameters"] == parameters
        verdicts = [each["is_anomaly"] for each in expected["results"]]
        assert set(verdicts) == {True, False}
        assert outputs_of(response)["is_anomaly"]["data"] == verdicts

    def test_colour_image_equals_score(self, server: Server) -> None:
        image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        (expected,) = scored(server, file.getvalue(), model="colour")
        values = image.transpose(2, 0, 1)[None]
        outputs = outputs_of(infer(server, tensor(values), path="/v2/models/colour/infer"))
        assert outputs["reconstruction"]["shape"] == [1, 3, 8, 8]
        assert (outputs["mse"]["data"], outputs["score"]["data"]) == ([expected["mse"]], [expected["score"]])

    def test_mse_matches_the_reconstruction(self, server: Server, images: NDArray[np.uint8]) -> None:
        outputs = outputs_of(infer(server, tensor(images)))
        rebuilt = np.array(outputs["reconstruction"]["data"]).reshape(outputs["reconstruction"]["shape"])
        mse = ((images / 255 - rebuilt) ** 2).mean(axis=(1, 2, 3))
        assert outputs["mse"]["data"] == pytest.approx(mse.tolist(), rel=1e-5)


class TestRequests:
    def test_without_outputs_all_are_returned(self, server: Server, images: NDArray[np.uint8]) -> None:
        assert list(outputs_of(infer(server, tensor(images)))) == OUTPUTS
        assert list(outputs_of(infer(server, tensor(images), outputs=[]))) == OUTPUTS

    def test_requested_outputs_are_returned_in_their_order(self, server: Server, images: NDArray[np.uint8]) -> None:
        requested = [{"name": "p_value"}, {"name": "mse"}]
        assert list(outputs_of(infer(server, tensor(images), outputs=requested))) == ["p_value", "mse"]

    def test_request_id_is_returned(self, server: Server, images: NDArray[np.uint8]) -> None:
        assert infer(server, tensor(images), id="größe 5").json()["id"] == "größe 5"
        assert infer(server, tensor(images), id="").json()["id"] == ""
        assert "id" not in infer(server, tensor(images)).json()

    def test_nested_data(self, server: Server, images: NDArray[np.uint8]) -> None:
        nested = infer(server, tensor(images, data=images.tolist()))
        assert outputs_of(nested) == outputs_of(infer(server, tensor(images)))
        largest = np.zeros((MAX_FILES, 3, 8, 8), np.uint8)
        outputs_of(infer(server, tensor(largest, data=largest.tolist()), path="/v2/models/colour/infer"))

    def test_too_many_lists_are_400(self, server: Server, images: NDArray[np.uint8]) -> None:
        assert "lists" in error_of(infer(server, tensor(images, data=[[]] * 2000)))
        assert "lists" not in error_of(infer(server, tensor(images, data=[[]] * 500)))

    def test_unknown_members_are_ignored(self, server: Server, images: NDArray[np.uint8]) -> None:
        response = infer(
            server, tensor(images, parameters={"tag": 1}), model_name="x", parameters={"priority": 3, "timeout": 1},
            outputs=[{"name": "mse", "parameters": {"classification": 2}}],
        )  # fmt: skip
        assert list(outputs_of(response)) == ["mse"]

    @pytest.mark.parametrize(
        "members",
        [
            {"id": 7}, {"parameters": []}, {"outputs": {}}, {"outputs": [{"name": "heatmap"}]}, {"outputs": [{}]},
            {"outputs": ["mse"]}, {"outputs": [{"name": "mse"}] * 8},
            {"parameters": {"binary_data_output": 1}}, {"outputs": [{"name": "mse", "parameters": {"binary_data": 1}}]},
            *({"parameters": {"false_alarm_rate": rate}} for rate in BAD_RATES),
            {"parameters": {"threshold": -1}}, {"parameters": {"threshold": "1"}},
            {"parameters": {"threshold": 0.5, "false_alarm_rate": 0.1}},
            {"parameters": {"fdr": 0.1, "false_alarm_rate": 0.1}}, {"parameters": {"fdr": 0.1, "threshold": 0.5}},
            {"parameters": {"fdr": "0.1"}}, {"parameters": {"fdr": 1}},
        ],
        ids=repr,
    )  # fmt: skip
    def test_invalid_members_are_400(self, server: Server, images: NDArray[np.uint8], members: Body) -> None:
        error_of(infer(server, tensor(images), **members))

    def test_threshold_decides_instead_of_a_rate(self, server: Server, images: NDArray[np.uint8]) -> None:
        scores = outputs_of(infer(server, tensor(images)))["score"]["data"]
        response = infer(server, tensor(images), parameters={"threshold": min(scores)})
        assert response.json()["parameters"] == {"threshold": min(scores), "false_alarm_rate": None}
        assert outputs_of(response)["is_anomaly"]["data"] == [score > min(scores) for score in scores]

    def test_unsupported_false_alarm_rate_is_400_with_the_required_size(
        self, server: Server, images: NDArray[np.uint8]
    ) -> None:
        response = infer(server, tensor(images), parameters={"false_alarm_rate": 0.0001})
        assert "needs at least 9999 calibration images" in error_of(response)
        response = infer(server, tensor(images), parameters={"fdr": 0.0001})
        assert "with fdr 0.0001 no image can be flagged" in error_of(response)

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
    def test_tensor_that_does_not_match_the_model_is_400(
        self, server: Server, images: NDArray[np.uint8], changed: Body
    ) -> None:
        error_of(infer(server, tensor(images, **changed)))

    @pytest.mark.parametrize(
        ("datatype", "bad"),
        [
            *itertools.product(["UINT8"], [-1, 256, 2**40, 2**64, 5.0, 0.5, True, None, "5", [5], {}]),
            *itertools.product(["FP32"], [-0.001, 1.001, 255, 1e39, -1e300, 2**64, True, None, "0.5", [0.5], {}]),
        ],
    )
    def test_json_values_out_of_range_are_400(self, server: Server, datatype: str, bad: object) -> None:
        good = infer(server, tensor(np.zeros((1, 1, 8, 8), np.uint8), datatype=datatype, data=[0] * 63 + [1]))
        assert good.status_code == 200
        body = tensor(np.zeros((1, 1, 8, 8), np.uint8), datatype=datatype, data=[0] * 63 + [bad])
        assert "image" in error_of(infer(server, body))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-6, 1.0001])
    def test_binary_values_out_of_range_are_400(self, server: Server, bad: float) -> None:
        values = np.zeros((1, 1, 8, 8), np.float32)
        values[0, 0, 3, 4] = bad
        head = {"inputs": [tensor(values, data=None, parameters={"binary_data_size": values.nbytes})]}
        assert "[0, 1]" in error_of(send_binary(server, head, values.tobytes()))

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"{", b"null", b"[]", b"5", b'"x"', b"\xff\xfe", b'{"inputs": NaN}', b"[" * 5000, b"{}",
            b'{"inputs": []}', b'{"inputs": {}}', b'{"inputs": null}', b'{"inputs": [null]}', b'{"id": "\\ud800"}',
            b'{"inputs": [' + b"{}," * 100_000 + b"{}]}", b'{"inputs": [' + b"[]," * 100_000 + b"[]]}",
        ],
        ids=lambda body: repr(body)[:30],
    )  # fmt: skip
    def test_invalid_body_is_400(self, server: Server, body: bytes) -> None:
        assert len(error_of(server.client.post(INFER, content=body))) < 300

    def test_two_tensors_are_400(self, server: Server, images: NDArray[np.uint8]) -> None:
        error_of(infer(server, tensor(images), tensor(images)))

    def test_compressed_body_is_decompressed(self, server: Server, images: NDArray[np.uint8]) -> None:
        body = gzip.compress(json.dumps({"inputs": [tensor(images)]}).encode())
        response = server.client.post(INFER, content=body, headers={"Content-Encoding": "gzip"})
        assert outputs_of(response) == outputs_of(infer(server, tensor(images)))


class TestLimits:
    def test_too_many_images_are_413(self, server: Server) -> None:
        outputs_of(infer(server, tensor(np.zeros((MAX_FILES, 1, 8, 8), np.uint8))))
        reason = error_of(infer(server, tensor(np.zeros((MAX_FILES + 1, 1, 8, 8), np.uint8))), 413)
        assert reason == "one request may carry 8 images, this one has 9; ANOMALY_MAX_FILES sets this limit"
        error_of(infer(server, tensor(np.zeros((1, 1, 8, 8), np.uint8), shape=[10**9, 1, 8, 8])), 413)

    def test_body_above_the_limit_is_413(self, server: Server, images: NDArray[np.uint8]) -> None:
        text = json.dumps({"inputs": [tensor(images)]}).encode()
        assert server.client.post(INFER, content=text.ljust(MAX_BODY_BYTES)).status_code == 200
        error_of(server.client.post(INFER, content=text.ljust(MAX_BODY_BYTES + 1)), 413)

        def chunks() -> Iterator[bytes]:
            for _ in range(MAX_BODY_BYTES // 2**16 + 1):
                yield bytes(2**16)

        error_of(server.client.post(INFER, content=chunks()), 413)


def test_images_are_counted_and_logged(server: Server, images: NDArray[np.uint8]) -> None:
    def metric(line: str) -> float:
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
    before = [metric(name) for name in names]
    response = infer(server, tensor(images))
    anomalies = sum(outputs_of(response)["is_anomaly"]["data"])
    assert [after - then for after, then in zip(map(metric, names), before, strict=True)] == [
        2 - anomalies, anomalies, 2, 2, 1,
    ]  # fmt: skip
    assert metric("anomaly_queue_depth") == 0
    lines = [json.loads(each) for each in server.log.read_text().splitlines()]
    (line,) = [each for each in lines if each.get("request_id") == response.headers["X-Request-ID"]]
    assert (line["anomaly"], line["normal"], line["model"]) == (anomalies, 2 - anomalies, "digits-5")
