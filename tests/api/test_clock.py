"""A clock that is set back, or far ahead, while the service runs: timers use the monotonic clock."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from app.inference.bundles.labels import read
from app.inference.bundles.store import ModelStore
from tests.support import ROOT, encode, free_port, gradient, make_bundle

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="needs Debian's package faketime")


def set_clock(file: Path, offset: str) -> None:
    """Replaces the file at once: a process that read half an offset would end."""
    file.with_suffix(".new").write_text(offset + "\n")
    file.with_suffix(".new").rename(file)


def wait_until_ready(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the service has ended")


def test_clock_going_backwards_changes_no_answer(tmp_path: Path) -> None:
    ModelStore(tmp_path / "store").publish(*make_bundle("m"))
    clock, labels, port = tmp_path / "clock", tmp_path / "labels.jsonl", free_port()
    set_clock(clock, "+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "ANOMALY_MODEL_STORE": str(tmp_path / "store"),
        "ANOMALY_MODEL": "m",
        "ANOMALY_PORT": str(port),
        "ANOMALY_DRAIN_S": "0",
        "ANOMALY_FEEDBACK_PATH": str(labels),
        "ANOMALY_DRIFT_PATH": str(tmp_path / "drift"),
    }
    with (
        subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=environment) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
    ):
        try:
            wait_until_ready(client, process)
            for width, offset in enumerate(("-1h", "+400d", "-800d"), start=8):
                set_clock(clock, offset)
                image = encode(gradient(width))
                answer = client.post("/score", content=image, headers={"Content-Type": "image/png"})
                assert answer.status_code == 200
                label = {"id": answer.json()["results"][0]["id"], "verdict": "normal"}
                assert client.post("/feedback", json=label).status_code == 201
                health = client.get("/health")
                assert health.status_code == 200
                assert 0 <= health.json()["uptime_s"] < 600
                assert client.get("/metrics").status_code == 200
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    hours = [label.labelled_at.timestamp() // 3600 for label in read(labels).labels]
    assert len(set(hours)) == 3, "the clock was not changed"
