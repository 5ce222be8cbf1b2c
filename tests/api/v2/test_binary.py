"""The binary tensor extension of the Open Inference Protocol."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.api.v2.schemas import InferenceResponse
from tests.api.v2.conftest import INFER, error_of, infer, outputs_of, send_binary, tensor
from tests.support import Server

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process


class TestBinary:
    def test_binary_and_json_outputs_in_one_response(self, server: Server, images: NDArray[np.uint8]) -> None:
        expected = outputs_of(infer(server, tensor(images)))
        head = {
            "inputs": [tensor(images, data=None, parameters={"binary_data_size": images.nbytes})],
            "parameters": {"binary_data_output": True},
            "outputs": [
                {"name": "score"},
                {"name": "mse", "parameters": {"binary_data": False}},
                {"name": "is_anomaly", "parameters": {"binary_data": True}},
                {"name": "reconstruction"},
            ],
        }
        response = send_binary(server, head, images.tobytes())
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/octet-stream"
        length = int(response.headers["Inference-Header-Content-Length"])
        outputs = json.loads(response.content[:length])["outputs"]
        InferenceResponse.model_validate_json(response.content[:length])
        sizes = [each.get("parameters", {}).get("binary_data_size") for each in outputs]
        assert sizes == [16, None, 2, 512]
        assert [("data" in each) for each in outputs] == [False, True, False, False]
        assert len(response.content) == length + 16 + 2 + 512
        tensors = response.content[length:]
        assert np.frombuffer(tensors[:16], "<f8").tolist() == expected["score"]["data"]
        assert outputs[1]["data"] == expected["mse"]["data"]
        assert tensors[16:18] == bytes(expected["is_anomaly"]["data"])
        assert np.array_equal(
            np.frombuffer(tensors[18:], "<f4"), np.array(expected["reconstruction"]["data"], np.float32)
        )

    def test_binary_input_with_json_output(self, server: Server, images: NDArray[np.uint8]) -> None:
        for values in (images, images.astype(np.float32) / np.float32(255)):
            head = {"inputs": [tensor(values, data=None, parameters={"binary_data_size": values.nbytes})]}
            response = send_binary(server, head, values.tobytes())
            assert "Inference-Header-Content-Length" not in response.headers
            assert outputs_of(response) == outputs_of(infer(server, tensor(images)))

    def test_json_length_header_without_binary_tensors(self, server: Server, images: NDArray[np.uint8]) -> None:
        outputs_of(send_binary(server, {"inputs": [tensor(images)]}, b""))

    @pytest.mark.parametrize("length", ["0", "-1", "+5", "1e3", "", "x", "999999", "9" * 5000, "10", "²"])
    def test_invalid_json_length_is_400(self, server: Server, images: NDArray[np.uint8], length: str) -> None:
        head = json.dumps({"inputs": [tensor(images, data=None, parameters={"binary_data_size": images.nbytes})]})
        header = {b"Inference-Header-Content-Length": length.encode()}
        error_of(server.client.post(INFER, content=head.encode() + images.tobytes(), headers=header))

    @pytest.mark.parametrize("size", [0, 1, 127, 129, -1, -128, 2**62, 2**80, 128.0, True])
    def test_invalid_binary_data_size_is_400(self, server: Server, images: NDArray[np.uint8], size: Any) -> None:
        head = {"inputs": [tensor(images, data=None, parameters={"binary_data_size": size})]}
        error_of(send_binary(server, head, images.tobytes()))

    @pytest.mark.parametrize("cut", [slice(0, 0), slice(0, 127), slice(0, 129)])
    def test_missing_or_extra_bytes_are_400(self, server: Server, images: NDArray[np.uint8], cut: slice) -> None:
        head = {"inputs": [tensor(images, data=None, parameters={"binary_data_size": 128})]}
        assert "follow the JSON object" in error_of(send_binary(server, head, (images.tobytes() + b"x")[cut]))

    def test_bytes_without_binary_data_size_are_400(self, server: Server, images: NDArray[np.uint8]) -> None:
        assert "1 bytes follow" in error_of(send_binary(server, {"inputs": [tensor(images)]}, b"x"))

    def test_json_data_and_binary_data_size_is_400(self, server: Server, images: NDArray[np.uint8]) -> None:
        head = {"inputs": [tensor(images, parameters={"binary_data_size": 128})]}
        assert "both" in error_of(send_binary(server, head, images.tobytes()))

    def test_binary_data_size_without_json_length_is_400(self, server: Server, images: NDArray[np.uint8]) -> None:
        body = tensor(images, data=None, parameters={"binary_data_size": 128})
        assert "Inference-Header-Content-Length" in error_of(infer(server, body))
