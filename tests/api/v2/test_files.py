"""BYTES tensors: image files in the Open Inference Protocol."""

import base64
import struct
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from tests.api.v2.conftest import INFER, Body, Digits, error_of, infer, outputs_of, scored, send_binary
from tests.support import Server, encode, gradient

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process


@pytest.fixture(scope="module")
def files(digit_files: Digits) -> list[bytes]:
    """A five, a seven, and a large image in colour."""
    return [digit_files[5][0], digit_files[7][0], encode(gradient(500, 300).convert("RGB"), "JPEG")]


def listed(files: Sequence[bytes | str], **changed: Any) -> Body:
    texts = [each if isinstance(each, str) else base64.b64encode(each).decode() for each in files]
    return {"name": "image", "shape": [len(files)], "datatype": "BYTES", "data": texts, **changed}


def send_files(server: Server, content: bytes, count: int, size: int | None = None) -> httpx.Response:
    parameters = {"binary_data_size": len(content) if size is None else size}
    tensor = {"name": "image", "shape": [count], "datatype": "BYTES", "parameters": parameters}
    return send_binary(server, {"inputs": [tensor]}, content)


def packed(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


class TestFiles:
    def test_files_score_as_in_score(self, server: Server, files: list[bytes]) -> None:
        expected = scored(server, *files)
        uris = [f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]
        nested = listed(files, shape=[3, 1], data=[[text] for text in listed(files)["data"]])
        for body in (listed(files), listed(uris), listed(files, shape=[3, 1]), nested):
            outputs = outputs_of(infer(server, body))
            assert outputs["reconstruction"]["shape"] == [3, 1, 8, 8]
            for name in ("score", "mse", "p_value", "is_anomaly"):
                assert outputs[name]["data"] == [each[name] for each in expected]

    def test_binary_files_score_as_in_json(self, server: Server, files: list[bytes]) -> None:
        assert outputs_of(send_files(server, packed(*files), 3)) == outputs_of(infer(server, listed(files)))

    def test_triton_sends_files(self, server: Server, files: list[bytes]) -> None:
        expected = [each["score"] for each in scored(server, *files)]
        image = triton.InferInput("image", [3], "BYTES")
        image.set_data_from_numpy(np.array(files, dtype=np.object_), binary_data=True)
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert client.infer("digits-5", [image]).as_numpy("score").tolist() == expected

    def test_metadata_describes_files(self, server: Server) -> None:
        (image,) = server.client.get("/v2/models/digits-5").json()["inputs"]
        assert "BYTES" in image["parameters"]["accepts"]
        assert "base64" in image["parameters"]["accepts"]

    def test_unreadable_file_fails_the_request(self, server: Server, files: list[bytes]) -> None:
        assert "not a readable image" in error_of(infer(server, listed([files[0], b"text"])))
        large = encode(gradient(2000, 2000))
        assert error_of(infer(server, listed([large])), 413).endswith("ANOMALY_MAX_PIXELS sets this limit")

    @pytest.mark.parametrize(
        "changed",
        [
            {"shape": [1]}, {"shape": [3]}, {"shape": [1, 2]}, {"shape": [2, 2]}, {"shape": [2, 1, 1]}, {"shape": []},
            {"shape": [2, 1, 8, 8]}, {"data": None}, {"data": "aGk="}, {"data": [1, 2]}, {"data": ["aGk=", None]},
            {"data": ["aGk=", "@"]}, {"data": [["aGk="], "aGk="]}, {"datatype": "STRING"},
        ],
        ids=repr,
    )  # fmt: skip
    def test_invalid_tensor_is_400(self, server: Server, files: list[bytes], changed: Body) -> None:
        error_of(infer(server, listed(files[:2], **changed)))

    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize(
        "content",
        [b"", b"\1\0\0", packed(b"ab", b"cd")[:-1], packed(b"ab", b"cd") + b"x", struct.pack("<I", 2**32 - 1) + b"x"],
        ids=len,
    )
    def test_invalid_elements_are_400(self, server: Server, content: bytes, count: int) -> None:
        error_of(send_files(server, content, count))

    def test_wrong_binary_data_size_is_400(self, server: Server, files: list[bytes]) -> None:
        content = packed(files[0])
        assert "follow the JSON object" in error_of(send_files(server, content, 1, size=len(content) + 1))
        assert "both" in error_of(infer(server, listed(files[:1], parameters={"binary_data_size": 0})))

    def test_too_many_files_are_413(self, server: Server, files: list[bytes]) -> None:
        reason = error_of(infer(server, listed(files[:1] * 9)), 413)
        assert reason == "one request may carry 8 images, this one has 9; ANOMALY_MAX_FILES sets this limit"
        error_of(send_files(server, b"", 10**9), 413)
        response = server.client.post(INFER, json={"inputs": [listed(["A" * 2**20])]})
        assert error_of(response, 413).endswith("ANOMALY_MAX_BODY_BYTES sets this limit")
