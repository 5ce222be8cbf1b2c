"""A run with the recipe ``features``, from a folder to a served bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.inference.bundles.store import ModelStore
from app.inference.images.decoding import open_image
from tests.support import Server, encode, running_server
from training.__main__ import main
from training.export import SUFFIXES


def part(random: np.random.Generator, *, defect: bool = False) -> Image.Image:
    """A grey disc on a textured ground; a defect is a dark scratch."""
    y, x = np.mgrid[0:64, 0:64]
    pixels = 90 + 8 * random.standard_normal((64, 64)) + 80 * ((x - 32) ** 2 + (y - 32) ** 2 < 18**2)
    if defect:
        pixels[20:44, 30:34] = 20
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    random = np.random.default_rng(0)
    for place, count, defect in (("normal", 60, False), ("test/normal", 10, False), ("test/anomaly/scratch", 10, True)):
        (folder / place).mkdir(parents=True)
        for index in range(count):
            part(random, defect=defect).save(folder / place / f"{index}.png")
    words = [
        "--data",
        str(folder),
        "--recipe",
        "features",
        "--size",
        "64",
        "--false-alarm-rate",
        "0.1",
        "--name",
        "parts",
    ]
    assert main([*words, "--store", str(folder / "store"), "--data-dir", str(folder / "data")]) == 0
    return folder / "store"


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(store, log, measure_coverage=False, model="parts") as running:
        yield running


def test_manifest_names_backbone_and_error_map(store: Path) -> None:
    manifest = ModelStore(store).manifest("parts")
    assert manifest.schema_version == 2
    assert manifest.training.backbone is not None
    assert manifest.training.backbone.name == "efficientnet_lite0"
    assert manifest.training.recipe["backbone"] == "efficientnet_lite0"
    assert manifest.error_map is not None
    assert (manifest.error_map.height, manifest.error_map.width, manifest.error_map.score) == (4, 4, "maximum")
    assert manifest.evaluation is not None
    assert manifest.evaluation.detection_rate == 1
    assert sum(record.bytes for record in manifest.files.values()) < 20 * 10**6


def test_defects_are_found_over_http_and_the_map_shows_where(server: Server) -> None:
    random = np.random.default_rng(1)
    files = [("file", encode(part(random, defect=defect))) for defect in (False, True)]
    answer = server.client.post("/score?include=error_map,reconstruction", files=files).json()
    normal, anomaly = answer["results"]
    assert anomaly["is_anomaly"]
    assert normal["score"] < anomaly["score"]
    assert anomaly["error_map"] != normal["error_map"]
    strip = server.client.post("/score", files=files[1:], headers={"Accept": "image/png"})
    assert strip.headers["content-type"] == "image/png"


def test_entirely_foreign_images_score_above_all_normal_images(store: Path) -> None:
    """The level that is subtracted from the map is limited, so that it cannot hide them."""
    bundle = ModelStore(store).load("parts", ModelStore(store).current("parts"))
    random, torch_random = np.random.default_rng(2), torch.Generator().manual_seed(0)
    normal = torch.stack(
        [open_image(encode(part(random)), max_pixels=10**6).decode(bundle.spec).tensor for _ in range(20)]
    )
    constants = [torch.full((1, 64, 64), value) for value in (0.0, 0.35, 0.65, 1.0)]
    foreign = torch.stack([*constants, torch.rand(1, 64, 64, generator=torch_random), 1 - normal[0]])
    limit = max(*bundle.score_batch(normal).score, bundle.manifest.calibration.scores[-1])
    assert min(bundle.score_batch(foreign).score) > 10 * limit


def test_the_threshold_comes_from_folds(store: Path) -> None:
    manifest = ModelStore(store).manifest("parts")
    assert (manifest.calibration.folds, manifest.calibration.size, manifest.training.split.fit) == (5, 60, 60)
    assert manifest.data.near_duplicates is not None
    assert set(manifest.data.near_duplicates) == {"different folds", "normal and test"}
    assert manifest.evaluation is not None
    assert manifest.evaluation.false_alarm_rate is not None
    assert manifest.evaluation.false_alarm_rate <= 0.3


def test_a_score_of_its_own_cannot_be_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--recipe", "features", "--score", "mse", "--store", str(tmp_path)]) == 1
    assert "leave --score out" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_export_gives_the_numbers_of_the_bundle(store: Path, tmp_path: Path, form: str) -> None:
    """The command itself compares them for the golden image, alone and in a batch; here, for an anomaly."""
    runtime = pytest.importorskip({"onnx": "onnxruntime"}.get(form, form))
    path = tmp_path / f"parts{SUFFIXES[form]}"  # type: ignore[index]  # one of the formats
    assert main(["export", "parts", "--store", str(store), "--format", form, "--output", str(path)]) == 0
    bundle = ModelStore(store).load("parts", ModelStore(store).current("parts"))
    image = encode(part(np.random.default_rng(3), defect=True))
    given = open_image(image, max_pixels=10**6).decode(bundle.spec).tensor[None]
    with torch.inference_mode():
        expected = bundle.model(given)
    if form == "onnx":
        outputs = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": given.numpy()})
    else:
        compiled = runtime.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        outputs = compiled(given.numpy()).values()
    for output, right in zip(outputs, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(output), right, rtol=1e-3, atol=1e-4)
