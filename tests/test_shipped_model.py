"""The shipped model in model_store/: the files, and its accuracy on MNIST over HTTP."""

import base64
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from app.inference.bundles.store import ModelStore
from tests.support import ROOT, SHARED_DATA, Server, encode, running_server
from training.data.datasets import Source
from training.model.recipes import TUTORIAL
from training.model.scoring_rules import SCORING_RULES
from training.pipeline import train
from training.run import Run

STORE = ROOT / "model_store"
RAW = SHARED_DATA / "MNIST" / "raw"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(
        STORE, tmp_path_factory.mktemp("log") / "log", measure_coverage=False, log_level="warning"
    ) as server:
        yield server


def test_shipped_model_verifies_and_is_small() -> None:
    store = ModelStore(STORE)
    version = store.current("mnist-5")
    manifest = store.load("mnist-5", version).manifest
    assert manifest.input.shape == (1, 28, 28)
    assert (manifest.false_alarm_rate, manifest.calibration.size, manifest.calibration.groups) == (0.01, 1085, None)
    assert manifest.to_bytes() == (STORE / "mnist-5" / version / "manifest.json").read_bytes()
    files = [path for path in (STORE / "mnist-5" / version).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6e6
    for path in files:
        assert not re.search(rb"/(home|root|tmp|usr|opt|work|private)/", path.read_bytes()), path.name


def test_shipped_model_is_the_default_model(shipped: Server) -> None:
    assert shipped.client.get("/health").json()["model"]["name"] == "mnist-5"


@pytest.fixture(scope="module")
def mnist() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    if not RAW.is_dir():
        pytest.skip(f"the original MNIST files are missing in {RAW}")
    images = np.frombuffer((RAW / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer((RAW / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return images, labels


def images_without_digits() -> dict[str, npt.NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return {
        "blank": np.zeros((28, 28), np.uint8),
        "white": np.full((28, 28), 255, np.uint8),
        "grey": np.full((28, 28), 128, np.uint8),
        "uniform noise": random.integers(0, 256, (28, 28), dtype=np.uint8),
        "Gaussian noise": random.normal(128, 60, (28, 28)).clip(0, 255).astype(np.uint8),
        "black and white noise": (random.random((28, 28)) > 0.5).astype(np.uint8) * 255,
        "large blank": np.zeros((500, 400), np.uint8),
        "large noise": random.integers(0, 256, (300, 300), dtype=np.uint8),
    }


@pytest.mark.parametrize("name", images_without_digits())
def test_images_without_digits_are_anomalies(shipped: Server, name: str) -> None:
    data = encode(Image.fromarray(images_without_digits()[name]))
    response = shipped.client.post("/score?include=", content=data, headers={"Content-Type": "image/png"})
    (result,) = response.json()["results"]
    assert result["is_anomaly"], result
    assert any("above that of every calibration image" in warning for warning in result["warnings"])
    assert any("resized" in warning for warning in result["warnings"]) is name.startswith("large")


def test_inverted_five_gets_a_warning(shipped: Server) -> None:
    manifest = ModelStore(STORE).manifest("mnist-5")
    five = Image.open(io.BytesIO(base64.b64decode(manifest.golden.image)))
    results = shipped.client.post(
        "/score?include=", files=[("file", encode(five)), ("file", encode(ImageOps.invert(five)))]
    ).json()["results"]
    assert [result["verdict"] for result in results] == ["normal", "anomaly"]
    assert results[0]["warnings"] == []
    assert any(warning.startswith("looks inverted") for warning in results[1]["warnings"])


def rates(
    shipped: Server, images: npt.NDArray[np.uint8], five: npt.NDArray[np.bool_], query: str
) -> tuple[float, float]:
    """(false-alarm rate, detection rate) on the 10,000 test images, over HTTP."""
    files = [("files", encode(Image.fromarray(image))) for image in images]

    def score(start: int) -> list[bool]:
        response: httpx.Response = shipped.client.post(f"/score?include=&{query}", files=files[start : start + 50])
        assert response.status_code == 200, response.text
        return [result["is_anomaly"] for result in response.json()["results"]]

    with ThreadPoolExecutor(4) as pool:
        flagged = np.array([flag for batch in pool.map(score, range(0, len(files), 50)) for flag in batch])
    return float(flagged[five].mean()), float(flagged[~five].mean())


@pytest.mark.parametrize(
    ("query", "max_false_alarms", "min_detected"), [("", 0.02, 0.75), ("false_alarm_rate=0.05", 0.07, 0.94)]
)
def test_false_alarm_and_detection_rates_over_http(
    shipped: Server,
    mnist: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    query: str,
    max_false_alarms: float,
    min_detected: float,
) -> None:
    images, labels = mnist
    five = labels == 5
    assert (five.sum(), (~five).sum()) == (892, 9108)
    false_alarms, detected = rates(shipped, images, five, query)
    print(f"\n{query or 'calibrated rate'}: false alarms {false_alarms:.2%}, detected {detected:.2%}")
    assert false_alarms <= max_false_alarms
    assert detected >= min_detected


def test_tutorial_recipe_reaches_its_auroc(tmp_path: Path) -> None:
    if not RAW.is_dir():
        pytest.skip(f"the original MNIST files are missing in {RAW}")
    run = Run(
        source=Source("mnist", normal=(5,), data_dir=SHARED_DATA),
        name="tutorial",
        recipe=TUTORIAL,
        rule=SCORING_RULES["mse"],
        store=tmp_path,
        false_alarm_rate=0.01,
        guarantee="marginal",
        seed=1337,
        device="cpu",
        threads=1,
    )
    published = train(run)
    assert published.manifest.training.parameters == 1_132_944
    assert published.manifest.evaluation is not None
    assert (published.manifest.evaluation.auroc or 0) >= 0.955
