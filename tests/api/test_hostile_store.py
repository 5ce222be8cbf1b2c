"""A service whose store somebody else can write to: nothing there stops it, fills its memory, or is shown to others."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.inference.bundles.store import ModelStore
from tests import warm
from tests.hostile_models import Allocating, Hanging, write_version
from tests.process_memory import peak_bytes
from tests.support import ROOT, Server, encode, free_port, gradient, make_bundle, running_server

pytestmark = pytest.mark.no_cover  # coverage is measured in the server process

PNG = encode(gradient())
SECRET = "sk-live-4f9a"


def score(server: Server, model: str) -> int:
    return server.client.post("/score", params={"model": model}, files={"file": PNG}).status_code


def wait_for_refusal(server: Server, model: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        refused = {each["name"]: each["reason"] for each in server.client.get("/health").json()["refused"]}
        if model in refused:
            return str(refused[model])
        assert time.monotonic() < deadline, refused
        time.sleep(0.05)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "store")
    for seed, name in enumerate(("m", "other")):
        store.publish(*make_bundle(name, seed=seed))
    (tmp_path / "secret").write_text(SECRET)
    return store


def test_hanging_model_does_not_keep_others_from_loading_or_the_service_from_ending(
    store: ModelStore, tmp_path: Path
) -> None:
    write_version(store.root, "hanging", Hanging())
    with (
        running_server(store.root, tmp_path / "log", model="m", load_timeout_s=8) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        hanging = pool.submit(score, server, "hanging")
        time.sleep(1)
        began = time.monotonic()
        assert score(server, "other") == 200
        assert score(server, "m") == 200
        assert server.client.get("/health").status_code == 200
        assert not hanging.done()
        assert time.monotonic() - began < 5
        assert hanging.result() == 503
        assert wait_for_refusal(server, "hanging").endswith("did not load and score a few images within 8 s")


def test_sigterm_during_a_trial_ends_the_service(store: ModelStore, tmp_path: Path) -> None:
    write_version(store.root, "m", Hanging())
    with running_server(store.root, tmp_path / "log", ready=False, model="m", load_timeout_s=600) as server:
        assert server.client.get("/health").json()["status"] == "starting"
        time.sleep(1)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 10


def test_sigterm_ends_workers_that_have_no_model_yet(store: ModelStore, tmp_path: Path) -> None:
    """They accept connections only with a model."""
    write_version(store.root, "m", Hanging())
    log = tmp_path / "log"
    variables = {"MODEL_STORE": store.root, "PORT": free_port(), "MODEL": "m", "LOAD_TIMEOUT_S": 600, "WORKERS": 2}
    environment = {**os.environ, **{f"ANOMALY_{name}": str(value) for name, value in variables.items()}}
    process = warm.Process("app", cwd=ROOT, env={**environment, "ANOMALY_DRAIN_S": "0"}, log=log)
    time.sleep(5)  # while they import, or while they wait: the signal must not be lost
    process.terminate()
    assert process.wait(90) == 0, log.read_text()  # importing takes long on a busy machine, hanging ten minutes


def test_new_version_that_takes_all_memory_is_refused_and_the_old_one_still_serves(
    store: ModelStore, tmp_path: Path
) -> None:
    with running_server(store.root, tmp_path / "log", model="m") as server:
        write_version(store.root, "m", Allocating(), version="v9")
        assert "model.pt takes more than 1,024 MiB of memory" in wait_for_refusal(server, "m")
        assert score(server, "m") == 200


@pytest.mark.parametrize("hostile", ["link", "pipe", "sparse"])
def test_hostile_current_is_refused_and_the_old_version_still_serves(
    store: ModelStore, tmp_path: Path, hostile: str
) -> None:
    with running_server(store.root, tmp_path / "log", model="m", log_format="json") as server:
        assert score(server, "other") == 200
        peak = peak_bytes(server.process.pid)
        for name in ("m", "other"):
            current = store.root / name / "CURRENT"
            current.unlink()
            if hostile == "link":
                current.symlink_to(tmp_path / "secret")
            elif hostile == "pipe":
                os.mkfifo(current)
            else:
                with current.open("wb") as file:
                    file.truncate(3 * 2**30)
        reason = wait_for_refusal(server, "m")
        assert reason.startswith("m/CURRENT ")
        began = time.monotonic()
        assert [score(server, name) for name in ("m", "other")] == [200, 200]
        answers = [server.client.get(path).text for path in ("/health", "/models", "/models/m", "/metrics")]
        assert time.monotonic() - began < 5
        assert not any(SECRET in answer for answer in answers)
        assert peak_bytes(server.process.pid) < peak + 100 * 2**20
    assert SECRET not in (tmp_path / "log").read_text()
