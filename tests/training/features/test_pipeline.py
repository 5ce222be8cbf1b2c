"""A run with the recipe ``features``, from a folder to a served bundle."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.inference.bundles.store import ModelStore
from tests.support import Server, encode, running_server
from training.__main__ import main


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
    with running_server(store, tmp_path_factory.mktemp("log") / "log", model="parts") as running:
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


def test_a_score_of_its_own_cannot_be_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--recipe", "features", "--score", "mse", "--store", str(tmp_path)]) == 1
    assert "leave --score out" in capsys.readouterr().err
