"""A service with several workers: killed processes, and a metrics folder that somebody removes."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.inference.bundles.store import ModelStore
from tests import warm
from tests.support import ROOT, Server, encode, free_port, gradient, make_bundle

pytestmark = [
    pytest.mark.no_cover,  # coverage is measured in the server processes
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc"),
]

PNG = encode(gradient())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = ModelStore(tmp_path_factory.mktemp("store"))
    store.publish(*make_bundle("m"))
    return store.root


def until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def workers_of(master: int) -> list[int]:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@contextmanager
def two_workers(store: Path, log: Path) -> Iterator[Server]:
    """A service with two workers that have loaded their model; on a busy machine, their start takes long."""
    port = free_port()
    variables = {"MODEL_STORE": store, "PORT": port, "MODEL": "m", "WORKERS": 2, "DRAIN_S": 0}
    environment = {**os.environ, **{f"ANOMALY_{name}": str(value) for name, value in variables.items()}}
    process = warm.Process("app", cwd=ROOT, env=environment, log=log)
    try:
        until(lambda: log.exists() and log.read_text().count("startup complete") == 2, "the workers do not start")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield Server(process, client, port, log)
    finally:
        process.terminate()
        process.wait(30)


def test_killed_master_takes_its_workers_along(store: Path, tmp_path: Path) -> None:
    """Otherwise they serve on, unsupervised, and keep the port."""
    log = tmp_path / "log"
    with two_workers(store, log) as server:
        workers = workers_of(server.process.pid)
        assert len(workers) == 2
        server.process.kill()
        server.process.wait(10)
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "the workers outlive the master")
    assert log.read_text().count("the process that started this worker has ended") == 2


def test_removed_metrics_folder_is_created_again(store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with two_workers(store, log) as server:
        folder = metrics_folder(workers_of(server.process.pid)[0])
        remove(folder)
        assert [score(server) for _ in range(20)] == [200] * 20
        assert server.client.get("/metrics").status_code == 200
        until(lambda: files_in(folder) == 2, "the workers have no files")
        assert [score(server) for _ in range(20)] == [200] * 20
        until(lambda: counted(server) >= 20, "requests are not counted")

        killed, kept = workers_of(server.process.pid)
        os.kill(killed, signal.SIGKILL)
        remove(folder)
        until(lambda: len({*workers_of(server.process.pid)} - {killed, kept}) == 1, "the worker is not replaced")
        until(lambda: files_in(folder) == 2, "the new worker has no files")
        assert server.client.get("/metrics").status_code == 200
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(line.get("path") == "/score" for line in lines) == 40
    assert not [line for line in lines if line["level"] == "error"]


def remove(folder: Path) -> None:
    """Removes a folder in which workers may create a file meanwhile."""
    while True:
        try:
            shutil.rmtree(folder)
        except OSError:
            continue
        return


def metrics_folder(worker: int) -> Path:
    variables = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    (folder,) = (value for name, _, value in (each.partition(b"=") for each in variables) if name == FOLDER)
    return Path(os.fsdecode(folder))


FOLDER = b"PROMETHEUS_MULTIPROC_DIR"


def files_in(folder: Path) -> int:
    return len(list(folder.glob("gauge_livesum_*.db")))


def score(server: Server) -> int:
    return server.client.post("/score", files={"file": PNG}).status_code


def counted(server: Server) -> float:
    prefix = 'anomaly_requests_total{method="POST",route="/score",status="200"} '
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(prefix)) for line in lines if line.startswith(prefix))
