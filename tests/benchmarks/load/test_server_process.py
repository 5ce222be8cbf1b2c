import os
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import _start_time, free_port, pinned_server, process_tree
from tests.benchmarks.load.echo_server import CORE, echo

pytestmark = [
    pytest.mark.no_cover,
    pytest.mark.skipif(sys.platform != "linux" or shutil.which("taskset") is None, reason="needs Linux and taskset"),
]


def test_server_is_pinned_measured_and_stopped(tmp_path: Path) -> None:
    with echo(tmp_path / "log", free_port()) as server:
        assert os.sched_getaffinity(server.pid) == {CORE}
        assert 0 < server.seconds_to_ready < 60
        assert 3 * 2**20 < server.resident_bytes() < 200 * 2**20
    assert not Path(f"/proc/{server.pid}").exists()


def test_children_are_measured_and_stopped(tmp_path: Path) -> None:
    up = tmp_path / "up"
    child = f"import time; held = bytearray(b'x') * (50 * 2**20); open({str(up)!r}, 'w').close(); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    with pinned_server([sys.executable, "-c", parent], up.exists, log=tmp_path / "log", cores=[CORE]) as server:
        assert server.resident_bytes() > 50 * 2**20
        tree = process_tree(server.pid)
        assert len(tree) == 2
    assert not any(_start_time(pid) for pid in tree)


def test_pages_shared_after_a_fork_count_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import os, time; held = bytearray(b'x') * (60 * 2**20); os.fork(); os.write(1, b'u'); time.sleep(600)"
    command = [sys.executable, "-c", code]
    with pinned_server(command, lambda: log.read_bytes() == b"uu", log=log, cores=[CORE]) as server:
        assert len(process_tree(server.pid)) == 2
        assert 60 * 2**20 < server.resident_bytes() < 100 * 2**20


def test_processor_time_includes_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    work = "import os, time; os.fork()\nwhile time.process_time() < 0.3: pass\nos.write(1, b'd'); time.sleep(600)"
    command = [sys.executable, "-c", work]
    with pinned_server(command, lambda: log.read_bytes() == b"dd", log=log, cores=[CORE]) as server:
        assert 0.55 < server.cpu_seconds() < 1


def test_server_that_ends_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(BenchmarkError, match="ended with status 1: no such model"),
        pinned_server(command, lambda: False, log=tmp_path / "log", cores=[CORE]),
    ):
        pass


def test_server_that_never_answers_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print('loading', flush=True); time.sleep(600)"]
    with (
        pytest.raises(BenchmarkError, match=r"no correct answer in 0\.5 s"),
        pinned_server(command, lambda: False, log=tmp_path / "log", cores=[CORE], patience_s=0.5),
    ):
        pass
