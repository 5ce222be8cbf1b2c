"""``python -m training export``: other runtimes give the numbers of the service, and find the card in the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.inference.bundles.store import ModelStore
from tests.support import make_bundle
from training import export as exporting
from training.__main__ import main

pytest.importorskip("onnx", reason="the extra `export` is not installed")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "store")
    store.publish(*make_bundle("parts", seed=1))
    return store


def export(store: ModelStore, form: str, path: Path) -> int:
    return main(["export", "parts", "--store", str(store.root), "--format", form, "--output", str(path)])


def images(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(3).random((count, 1, 8, 8), np.float32)


def expected(store: ModelStore, given: np.ndarray[Any, np.dtype[np.float32]]) -> list[Any]:
    import torch

    bundle = store.load("parts", store.current("parts"))
    with torch.inference_mode():
        return [output.numpy() for output in bundle.model(torch.from_numpy(given))]


@pytest.mark.parametrize("count", [1, 5])
def test_onnx_gives_the_numbers_of_the_bundle_and_has_its_card(store: ModelStore, tmp_path: Path, count: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "parts.onnx"
    assert export(store, "onnx", path) == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    wanted = expected(store, images(count))
    assert names == ["reconstruction", "mse", "score", "error_map"][: len(wanted)]
    for output, right in zip(session.run(None, {"image": images(count)}), wanted, strict=True):
        np.testing.assert_allclose(output, right, atol=1e-5)
    card = session.get_modelmeta().custom_metadata_map
    manifest = store.manifest("parts")
    assert float(card["threshold"]) == manifest.threshold
    assert json.loads(card["manifest"])["version"] == card["version"] == manifest.version
    assert json.loads(card["input"])["mode"] == "L"


def test_openvino_gives_the_numbers_of_the_bundle_and_has_its_card(store: ModelStore, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "parts.xml"
    assert export(store, "openvino", path) == 0
    assert {each.name for each in tmp_path.iterdir()} == {"store", "parts.xml", "parts.bin"}
    model = openvino.Core().read_model(path)
    outputs = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images(5))
    for output, right in zip(outputs.values(), expected(store, images(5)), strict=True):
        np.testing.assert_allclose(output, right, atol=1e-5)
    assert model.get_rt_info(["anomaly", "version"]).astype(str) == store.current("parts")
    assert json.loads(model.get_rt_info(["anomaly", "manifest"]).astype(str))["name"] == "parts"


def test_export_with_other_numbers_is_not_written(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    original = exporting._onnx_runtime

    def wrong(content: bytes) -> exporting.Run:
        run = original(content)
        return lambda given: [output + np.float32(0.01) for output in run(given)]

    monkeypatch.setattr(exporting, "_onnx_runtime", wrong)
    assert export(store, "onnx", tmp_path / "parts.onnx") == 1
    assert "differs from the model by 0.01" in capsys.readouterr().err
    assert not (tmp_path / "parts.onnx").exists()


def test_missing_package_is_one_line(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda _: None)
    assert export(store, "onnx", tmp_path / "parts.onnx") == 1
    assert (
        capsys.readouterr().err
        == "error: onnx is not installed; install the packages for exports: pip install '.[export]'\n"
    )
