"""Drift monitoring over the real service: detection, restarts, several workers, bounded memory."""

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageFilter
from structlog.testing import capture_logs

from app.api.request_state import ScoredRequest
from app.api.telemetry.drift_monitor import DriftMonitor
from app.api.telemetry.drift_state import DriftDocument, DriftState, StateFile
from app.api.telemetry.metrics import Metrics
from app.inference.bundles.store import ModelStore
from app.inference.decisions.conformal import Calibration
from app.inference.decisions.drift_test import WINDOW
from tests.support import Server, encode, make_bundle, running_server
from training.run import Published

Answer = dict[str, Any]


def random_images(count: int, *, seed: int, contrast: float = 1) -> list[bytes]:
    """Images from the distribution that `make_bundle` calibrates on, optionally with less contrast."""
    pixels = 255 * (0.5 + contrast * (np.random.default_rng(seed).random((count, 8, 8)) - 0.5))
    return [encode(Image.fromarray(image)) for image in pixels.round().astype(np.uint8)]


def send(server: Server, images: list[bytes], model: str = "m") -> None:
    for start in range(0, len(images), 50):
        files = [("file", image) for image in images[start : start + 50]]
        response = httpx.post(
            f"{server.client.base_url}/score", params={"model": model, "include": ""}, files=files, trust_env=False
        )
        assert response.status_code == 200, response.text


def drift_state(server: Server, model: str = "m", *, seen: int | None = None) -> Answer:
    """The response of `/models/{model}/drift`, after waiting until it covers a number of images."""
    deadline = time.monotonic() + 60
    while True:
        answer: Answer = server.client.get(f"/models/{model}/drift").raise_for_status().json()
        if seen is None or answer["pictures"] + WINDOW * answer["windows"] == seen:
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def drift_metrics(server: Server, model: str = "m") -> dict[str, float]:
    lines = [line for line in server.client.get("/metrics").text.splitlines() if f'model="{model}"' in line]
    by_name = {name: [line for line in lines if line.startswith(f"anomaly_drift_{name}{{")]
             for name in ("windows_total", "alarms_total", "changed")}  # fmt: skip
    return {name: float(found[0].split()[-1]) for name, found in by_name.items() if found}


@pytest.fixture
def random_store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "store")
    store.publish(*make_bundle("m"))
    return store


def test_drift_is_detected_survives_a_restart_and_ends_with_a_new_version(
    random_store: ModelStore, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"model": "m", "drift_path": tmp_path / "kept" / "drift"}
    with running_server(random_store.root, tmp_path / "log", **options) as server:
        answer = drift_state(server)
        assert (answer["verdict"], answer["pictures"], answer["last"]) == ("too few pictures yet", 0, None)
        send(server, random_images(WINDOW + 30, seed=1))
        answer = drift_state(server, seen=WINDOW + 30)
        assert (answer["verdict"], answer["scores"], answer["since"]) == ("no change seen", None, None)
        assert answer["last"]["statistic"] < answer["last"]["limit"]
        assert 0.001 < answer["last"]["p_value"] <= 1
        assert answer["last"]["mean_p_value"] == pytest.approx(0.5, abs=0.15)
        assert drift_metrics(server) == {"windows_total": 1, "alarms_total": 0, "changed": 0}
        send(server, random_images(2 * WINDOW, seed=2, contrast=0.3))
        changed = drift_state(server, seen=3 * WINDOW + 30)
        assert (changed["verdict"], changed["scores"]) == ("changed", "lower")
        assert (changed["windows"], changed["alarms"], changed["pictures"]) == (3, 2, 30)
        assert changed["since"] < changed["last"]["at"]
        assert changed["last"]["p_value"] <= 0.001
        assert drift_metrics(server) == {"windows_total": 3, "alarms_total": 2, "changed": 1}
    assert (tmp_path / "log").read_text().count("the images have changed") == 1

    with running_server(random_store.root, tmp_path / "log", **options) as server:
        assert drift_state(server) == changed
        assert drift_metrics(server)["changed"] == 1
        newer, files = make_bundle("m", seed=5)
        random_store.publish(newer, files)
        server.wait_for("/health/ready", 200)
        deadline = time.monotonic() + 60
        while drift_state(server)["version"] != newer.version:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (drift_state(server)["verdict"], drift_state(server)["windows"]) == ("too few pictures yet", 0)
        send(server, random_images(1, seed=3))
        assert drift_state(server, seen=1)["windows"] == 0
        assert drift_metrics(server)["changed"] == 0


@pytest.mark.parametrize("change", ["bright", "noisy", "very blurred"])
def test_drift_of_handwritten_digits_is_detected(
    server: Server, trained: Published, digit_files: dict[int, list[bytes]], change: str
) -> None:
    random = np.random.default_rng(0)

    def changed(data: bytes) -> bytes:
        image = Image.open(io.BytesIO(data))
        if change == "very blurred":
            return encode(image.filter(ImageFilter.GaussianBlur(1.5)))
        pixels = np.asarray(image, np.float64)
        pixels = pixels + (90 if change == "bright" else random.normal(0, 90, pixels.shape))
        return encode(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))

    before = drift_state(server, "digits-5")
    missing = 2 * WINDOW - before["pictures"]  # the last full window has only changed images
    images = [changed(digit_files[5][number % len(digit_files[5])]) for number in range(missing)]
    for start in range(0, missing, 8):
        server.client.post("/score?include=", files=[("file", each) for each in images[start : start + 8]])
    answer = drift_state(server, "digits-5", seen=before["windows"] * WINDOW + 2 * WINDOW)
    assert answer["verdict"] == "changed"
    assert answer["scores"] == "higher" or change == "very blurred"  # simpler images are easier to reconstruct
    assert answer["version"] == trained.manifest.version


def test_drift_state_covers_all_workers(random_store: ModelStore, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": "m", "drift_path": tmp_path / "drift", "workers": 2}
    with running_server(random_store.root, tmp_path / "log", **options) as server:
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "drift").glob("worker-?.lock"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        files = list(tmp_path.glob("drift/*.json"))
        sent = 0
        while len(files) < 2 or sent < 3 * WINDOW:
            assert time.monotonic() < deadline, files
            try:
                send(server, random_images(50, seed=sent))
            except AssertionError:  # 503 from a worker that is still loading the model
                time.sleep(0.2)
                continue
            sent += 50
            files = list(tmp_path.glob("drift/*.json"))
            time.sleep(0.05)
        answer = drift_state(server, seen=sent)
        assert drift_metrics(server)["windows_total"] == answer["windows"]
        states = [DriftDocument.model_validate_json(file.read_bytes()).models["m"] for file in files]
        assert all(state.windows or state.ranks for state in states)


def test_state_file_is_locked_by_one_worker_and_taken_over_after_release(tmp_path: Path) -> None:
    first, second = StateFile(tmp_path), StateFile(tmp_path)
    state = DriftState(version="1", calibration_size=9, ranks=(1, 2))
    second.write({"m": state})
    assert first.read() == {}
    assert list(first.others()) == [{"m": state}]
    second.release()
    third = StateFile(tmp_path)
    assert third.read() == {"m": state}
    first.release()
    third.release()


def scored_request(calibration: Calibration, scores: list[float], version: str = "1") -> ScoredRequest:
    unused = [0.0] * len(scores)
    return ScoredRequest("m", version, calibration, 0, 0, unused, scores, unused, [], 0, 0)


def test_drift_state_has_bounded_memory_and_file_size(tmp_path: Path) -> None:
    calibration = Calibration(np.random.default_rng(0).random(300).tolist())
    scores = np.random.default_rng(1).random(50 * WINDOW - 1).tolist()

    async def run() -> list[DriftState]:
        drift = DriftMonitor(Metrics(), tmp_path)
        drift.open()
        for start in range(0, len(scores), 7):
            drift.add(scored_request(calibration, scores[start : start + 7]))
        drift.close()  # finishes pending comparisons
        return await drift.states("m", "1")

    (state,) = asyncio.run(run())
    assert (state.windows, len(state.ranks)) == (49, WINDOW - 1)
    (file,) = tmp_path.glob("*.json")
    assert DriftDocument.model_validate_json(file.read_bytes()).models["m"] == state
    assert file.stat().st_size < 2000


def test_drift_compares_with_one_score_of_each_group() -> None:
    """All images of few objects would be a sample of less than their number, and windows would differ from it."""
    random = np.random.default_rng(0)
    means, groups = random.normal(size=60), np.repeat(np.arange(60), 30)
    calibration = Calibration((means[groups] + 0.1 * random.normal(size=1800)).tolist(), groups.tolist())
    scores = (random.normal(size=20 * WINDOW) + 0.1 * random.normal(size=20 * WINDOW)).tolist()

    async def run() -> DriftState:
        drift = DriftMonitor(Metrics(), None)
        drift.add(scored_request(calibration, scores))
        drift.close()  # finishes pending comparisons
        (state,) = await drift.states("m", "1")
        return state

    state = asyncio.run(run())
    assert (state.calibration_size, state.windows) == (60, 20)
    assert state.alarms <= 1


def test_damaged_state_file_is_logged_once_and_ignored(tmp_path: Path) -> None:
    (tmp_path / "worker-0.json").write_text('{"schema_version": 1, "models": {"m"')
    drift = DriftMonitor(Metrics(), tmp_path)
    with capture_logs() as lines:
        drift.open()
    assert [line["event"] for line in lines] == ["drift state ignored"]
    drift.close()


def test_drift_is_monitored_if_the_folder_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    async def run() -> None:
        drift = DriftMonitor(Metrics(), tmp_path / "file")
        drift.open()
        drift.add(scored_request(Calibration([1, 2, 3]), [2.5]))
        (state,) = await drift.states("m", "1")
        assert state.ranks == (2,)
        drift.close()

    with capture_logs() as lines:
        asyncio.run(run())
    assert [line["event"] for line in lines] == ["drift state is not kept"]


def test_write_failure_is_logged_once_per_change(tmp_path: Path) -> None:
    async def run() -> None:
        drift = DriftMonitor(Metrics(), tmp_path / "drift")
        drift.open()
        (tmp_path / "drift" / "worker-0.json.part").mkdir()  # makes writing fail
        drift.add(scored_request(Calibration([1, 2, 3]), [2.5]))
        drift.close()

    with capture_logs() as lines:
        asyncio.run(run())
    assert [line["event"] for line in lines] == ["drift state is not kept"]


def test_drift_of_an_unknown_model_is_404(server: Server) -> None:
    answer = server.client.get("/models/nothing/drift")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
