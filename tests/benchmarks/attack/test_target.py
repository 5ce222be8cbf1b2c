"""The memory limit of the attacked service, and the end of all its processes."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.attack.outcome import MIB
from benchmarks.attack.target import Launch, Memory, launcher, limited_by_cgroup, target
from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import still_running
from tests.support import ROOT

pytestmark = pytest.mark.no_cover

GROWING = """
import subprocess, sys, time
if len(sys.argv) > 1:
    grow = "x = bytearray(b'x') * (300 << 20); input()"
    subprocess.Popen([sys.executable, "-c", grow], stdin=subprocess.PIPE).wait()
time.sleep(60)
"""


def test_the_largest_process_is_killed_at_the_limit() -> None:
    process = subprocess.Popen([sys.executable, "-c", GROWING, "grow"])
    memory = Memory(process.pid, 200 * MIB)
    try:
        until = time.monotonic() + 20
        while not memory.killed and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        assert [name.startswith("python") for name in memory.killed] == [True]
        assert memory.peak_bytes > 200 * MIB
        assert process.poll() is None  # the child was the largest
    finally:
        process.kill()
        process.wait()
        memory.stop()


def test_a_process_below_the_limit_lives() -> None:
    process = subprocess.Popen([sys.executable, "-c", GROWING])
    memory = Memory(process.pid, 200 * MIB)
    time.sleep(0.5)
    memory.stop()
    try:
        assert process.poll() is None
        assert memory.killed == []
        assert MIB < memory.peak_bytes < 200 * MIB
    finally:
        process.kill()
        process.wait()


def test_no_process_of_the_service_is_left(launch: Launch, tmp_path: Path) -> None:
    with target(launch, tmp_path, 1792 * MIB, {"model_store": ROOT / "model_store"}) as running:
        assert not running.has_ended()
        assert running.cpu_seconds() > 0
        assert asyncio.run(running.seconds_to_exit(20)) < 20
        time.sleep(0.2)
    assert still_running(running.memory.members) == []


def test_a_service_that_does_not_start_is_an_error_with_its_reason(launch: Launch, tmp_path: Path) -> None:
    with (
        pytest.raises(BenchmarkError, match="ANOMALY_MAX_FILES"),
        target(launch, tmp_path, 1792 * MIB, {"max_files": 0}),
    ):
        raise AssertionError("it started")


@pytest.mark.parametrize("works", [True, False], ids=["systemd works", "systemd refuses"])
def test_a_cgroup_is_used_where_systemd_can_make_one(
    works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = tmp_path / "called"
    systemd_run = tmp_path / "systemd-run"
    behaviour = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"' if works else "exit 1"
    systemd_run.write_text(f'#!/bin/sh\necho "$@" >> {called}\n{behaviour}\n')
    systemd_run.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    assert limited_by_cgroup() is works
    core = max(os.sched_getaffinity(0))
    process = launcher(core)({"PATH": path, "ANOMALY_PORT": "-1"}, tmp_path / "log", 5 * MIB)
    assert process.wait(30) == 2
    assert ("MemoryMax=5242880" in called.read_text()) is works
