"""Helpers for requests and responses of the Open Inference Protocol."""

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.api.v2.schemas import InferenceFailure, InferenceResponse
from tests.support import Server

Digits = dict[int, list[bytes]]
Body = dict[str, Any]

INFER = "/v2/models/digits-5/infer"
OUTPUTS = ["reconstruction", "mse", "score", "p_value", "is_anomaly", "error_map", "out_of_scope"]


def pixels(*files: bytes) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(io.BytesIO(file)), dtype=np.uint8)[None] for file in files])


@pytest.fixture(scope="module")
def images(digit_files: Digits) -> NDArray[np.uint8]:
    """A five and a seven."""
    return pixels(digit_files[5][0], digit_files[7][0])


def tensor(values: NDArray[Any], **changed: Any) -> Body:
    datatype = {"float32": "FP32", "uint8": "UINT8"}[values.dtype.name]
    members = {"name": "image", "shape": list(values.shape), "datatype": datatype, "data": values.ravel().tolist()}
    return {key: value for key, value in {**members, **changed}.items() if value is not None}


def infer(server: Server, *inputs: Body, path: str = INFER, **members: Any) -> httpx.Response:
    return server.client.post(path, json={"inputs": list(inputs), **members})


def send_binary(
    server: Server, head: Body, tensors: bytes, *, length: str | None = None, path: str = INFER
) -> httpx.Response:
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)) if length is None else length}
    return server.client.post(path, content=text + tensors, headers=headers)


def outputs_of(response: httpx.Response) -> dict[str, Body]:
    """Asserts that the response is valid, and returns its outputs by name."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body = InferenceResponse.model_validate_json(response.content)
    assert body.model_name in response.request.url.path
    return {each["name"]: each for each in response.json()["outputs"]}


def error_of(response: httpx.Response, status: int = 400) -> str:
    """Asserts that the response is an error in the protocol's form, and returns its reason."""
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
