import contextlib
import http.client
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.load import LoadError, Server, pinned_server, post_script, run_wrk

ECHO = """
import sys, http.server
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500 if b"fail" in body else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""

needs_tools = pytest.mark.skipif("not __import__('shutil').which('taskset')", reason="needs taskset")
needs_wrk = pytest.mark.skipif("not __import__('shutil').which('wrk')", reason="needs wrk")
on_linux = pytest.mark.skipif("__import__('sys').platform != 'linux'", reason="Linux only")
pytestmark = [pytest.mark.no_cover, needs_tools, on_linux]
CORE = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


@contextlib.contextmanager
def echo(log: Path, port: int) -> Iterator[Server]:
    def ready() -> bool:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("POST", "/", b"hello")
            return connection.getresponse().read() == b"hello"

    with pinned_server([sys.executable, "-c", ECHO, str(port)], ready, log=log, core=CORE) as server:
        yield server


def test_server_is_pinned_ready_weighed_and_gone(tmp_path: Path) -> None:
    with echo(tmp_path / "log", load.free_port()) as server:
        assert os.sched_getaffinity(server.pid) == {CORE}
        assert 0 < server.seconds_to_ready < 60
        assert 3 * 2**20 < server.resident_bytes() < 200 * 2**20
    assert not Path(f"/proc/{server.pid}").exists()


def test_children_are_weighed_and_stopped_too(tmp_path: Path) -> None:
    up = tmp_path / "up"
    child = f"import time; held = bytearray(b'x') * (50 * 2**20); open({str(up)!r}, 'w').close(); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    with pinned_server([sys.executable, "-c", parent], up.exists, log=tmp_path / "log", core=CORE) as server:
        assert server.resident_bytes() > 50 * 2**20
        tree = load.process_tree(server.pid)
        assert len(tree) == 2
    assert not any(load._started(pid) for pid in tree)


def test_pages_shared_after_a_fork_count_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import os, time; held = bytearray(b'x') * (60 * 2**20); os.fork(); os.write(1, b'u'); time.sleep(600)"
    command = [sys.executable, "-c", code]
    with pinned_server(command, lambda: log.read_bytes() == b"uu", log=log, core=CORE) as server:
        assert len(load.process_tree(server.pid)) == 2
        assert 60 * 2**20 < server.resident_bytes() < 100 * 2**20


def test_processor_time_of_the_whole_tree_counts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    work = "import os, time; os.fork()\nwhile time.process_time() < 0.3: pass\nos.write(1, b'd'); time.sleep(600)"
    command = [sys.executable, "-c", work]
    with pinned_server(command, lambda: log.read_bytes() == b"dd", log=log, core=CORE) as server:
        assert 0.55 < server.cpu_seconds() < 1


def test_server_that_ends_is_refused_with_its_last_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(LoadError, match="ended with status 1: no such model"),
        pinned_server(command, lambda: False, log=tmp_path / "log", core=CORE),
    ):
        pass


def test_server_that_never_answers_is_refused_and_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print('loading', flush=True); time.sleep(600)"]
    with (
        pytest.raises(LoadError, match=r"no good answer in 0\.5 s"),
        pinned_server(command, lambda: False, log=tmp_path / "log", core=CORE, patience_s=0.5),
    ):
        pass


@needs_wrk
def test_load_sends_every_body_and_counts_what_goes_wrong(tmp_path: Path) -> None:
    port = load.free_port()
    bodies = [bytes(range(256)), b'quotes " and \\ and\nlines']
    check = """
wrong = 0
function response(status, headers, body)
  if #body ~= 256 then wrong = wrong + 1 end
end
"""
    with echo(tmp_path / "log", port):
        url = f"http://127.0.0.1:{port}"
        good = run_wrk(url, post_script("/", bodies, "image/png"), 2, 1, core=CORE)
        checked = run_wrk(url, post_script("/", bodies, "image/png") + check, 1, 1, core=CORE)
        failing = run_wrk(url, post_script("/", [b"fail", *bodies[:1]], "image/png"), 1, 1, core=CORE)
    assert good.errors == 0
    assert good.requests_per_s > 10
    assert 0 < good.p50_ms <= good.p99_ms < 1000
    assert checked.errors == pytest.approx(checked.requests / 2, abs=2)  # every second one, whatever the machine's pace
    assert failing.errors == pytest.approx(failing.requests / 2, abs=2)


@needs_wrk
def test_wrk_that_cannot_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="wrk failed"):
        run_wrk("http://127.0.0.1:1", "", 1, 1, core=CORE)
