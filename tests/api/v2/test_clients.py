"""The Open Inference Protocol with third-party clients."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.api.v2.conftest import (
    OUTPUTS,
    Digits,
    pixels,
    scored,
)
from tests.support import Server
from training.run import Published

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process


class TestTriton:
    """NVIDIA's Triton client."""

    @pytest.fixture
    def client(self, server: Server) -> Iterator[triton.InferenceServerClient]:
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            yield client

    @pytest.mark.parametrize("coding", ["gzip", "deflate"])
    def test_triton_compresses_requests(
        self, client: triton.InferenceServerClient, digit_files: Digits, coding: str
    ) -> None:
        images = pixels(digit_files[5][0], digit_files[7][0])
        sent = triton.InferInput("image", list(images.shape), "UINT8")
        sent.set_data_from_numpy(images)
        plain = client.infer("digits-5", [sent])
        compressed = client.infer("digits-5", [sent], request_compression_algorithm=coding)
        assert compressed.as_numpy("score").tolist() == plain.as_numpy("score").tolist()

    def test_triton_metadata_and_readiness(self, client: triton.InferenceServerClient, trained: Published) -> None:
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
    def test_triton_inference(
        self, client: triton.InferenceServerClient, server: Server, digit_files: Digits,
        dtype: type[Any], binary_in: bool, binary_out: bool | None,
    ) -> None:  # fmt: skip
        files = (digit_files[5][2], digit_files[1][2])
        values = pixels(*files) if dtype is np.uint8 else pixels(*files).astype(np.float32) / np.float32(255)
        tensor = triton.InferInput("image", list(values.shape), "UINT8" if dtype is np.uint8 else "FP32")
        tensor.set_data_from_numpy(values, binary_data=binary_in)
        requested = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in OUTPUTS]
        result = client.infer(
            "digits-5", [tensor], request_id="t-1", outputs=None if binary_out is None else requested,
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

    def test_triton_errors(self, client: triton.InferenceServerClient) -> None:
        tensor = triton.InferInput("image", [1, 1, 9, 9], "UINT8")
        tensor.set_data_from_numpy(np.zeros((1, 1, 9, 9), np.uint8))
        with pytest.raises(InferenceServerException, match=r"the model takes \[-1, 1, 8, 8\]") as caught:
            client.infer("digits-5", [tensor])
        assert caught.value.status() == "400"
        with pytest.raises(InferenceServerException, match="no model named 'nothing'"):
            client.get_model_metadata("nothing")


def kserve_python() -> str:
    """An interpreter with the ``kserve`` package, whose pinned dependencies conflict with those of this project."""
    given = os.environ.get("KSERVE_PYTHON")
    if given is None and importlib.util.find_spec("kserve") is None:
        pytest.skip("kserve is not installed; KSERVE_PYTHON can name an interpreter that has it")
    return given or sys.executable


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_kserve_client(server: Server, digit_files: Digits, tmp_path: Path, dtype: type[Any]) -> None:
    """KServe's REST client."""
    python, files = kserve_python(), (digit_files[5][3], digit_files[8][3])
    values = pixels(*files) if dtype is np.uint8 else pixels(*files).astype(np.float32) / np.float32(255)
    np.save(tmp_path / "images.npy", values)
    script = Path(__file__).with_name("kserve_client.py")
    arguments = [f"http://127.0.0.1:{server.port}", "digits-5", str(tmp_path / "images.npy"), "0.5"]
    done = subprocess.run([python, str(script), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    received = json.loads(done.stdout)
    assert (received["live"], received["ready"], received["model_ready"], received["unknown_ready"]) == (
        True,
        True,
        True,
        False,
    )
    assert "there is no model named 'unknown', '404 Not Found'" in received["error"]
    expected = scored(server, *files)
    for answer in (received["json"], received["binary"]):
        assert answer["id"] == "from-kserve"
        assert list(answer["outputs"]) == OUTPUTS
        for name in ("mse", "score", "p_value", "is_anomaly"):
            assert answer["outputs"][name] == [each[name] for each in expected]
    assert received["json"]["outputs"]["reconstruction"] == received["binary"]["outputs"]["reconstruction"]
    half = scored(server, *files, false_alarm_rate=0.5)
    assert received["mixed"]["parameters"]["false_alarm_rate"] == 0.5
    assert received["mixed"]["outputs"] == {name: [each[name] for each in half] for name in ("score", "is_anomaly")}
