"""Confinement by Landlock: what a process may still do, and that decode processes are confined."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.inference.decoding_processes.confinement import landlock_version
from app.inference.decoding_processes.process import DecodeProcess

VERSION = landlock_version()

pytestmark = pytest.mark.skipif(not VERSION, reason="the kernel has no Landlock")

PROGRAM = """
import os, signal, socket, sys
from app.inference.decoding_processes.confinement import confine

path, port, connection = sys.argv[1], int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))
kept = open(path)
confine()

def outcome(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"

ways = {
    "read": lambda: open(path),
    "write": lambda: open(path + ".new", "w"),
    "list": lambda: os.listdir("/"),
    "delete": lambda: os.remove(path),
    "execute": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "connect": lambda: socket.create_connection(("127.0.0.1", port)),
    "signal": lambda: os.kill(os.getppid(), 0),
    "open before": lambda: kept.read(),
}
connection.sendall(repr({name: outcome(action) for name, action in ways.items()}).encode())
"""


@pytest.fixture
def outcomes(tmp_path: Path) -> dict[str, str]:
    """Way → the exception that a confined process gets, or ``done``."""
    file = tmp_path / "keys"
    file.write_text("secret")
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server, ours:
        with theirs:
            arguments = map(str, (file, server.getsockname()[1], theirs.fileno()))
            subprocess.run(
                [sys.executable, "-c", PROGRAM, *arguments], pass_fds=[theirs.fileno()], check=True, timeout=60
            )
        answer: dict[str, str] = eval(ours.recv(65_536))
    assert file.read_text() == "secret"
    return answer


def test_confined_process_reaches_no_file_and_no_program(outcomes: dict[str, str]) -> None:
    assert {outcomes[way] for way in ("read", "write", "list", "delete", "execute")} == {"PermissionError"}
    assert outcomes["open before"] == "done"


@pytest.mark.skipif(VERSION < 4, reason="Landlock before Linux 6.7 knows no TCP")
def test_confined_process_connects_to_no_port(outcomes: dict[str, str]) -> None:
    assert outcomes["connect"] == "PermissionError"


@pytest.mark.skipif(VERSION < 6, reason="Landlock before Linux 6.12 knows no signals")
def test_confined_process_signals_no_other_process(outcomes: dict[str, str]) -> None:
    assert outcomes["signal"] == "PermissionError"


PROBE = """
import os, signal

report = open(os.environ["PROBE_REPORT"], "w", buffering=1)  # before the process is confined

def probe(*_):
    try:
        os.close(os.open(os.environ["PROBE_FILE"], os.O_RDONLY))
        report.write("done\\n")
    except OSError as error:
        report.write(type(error).__name__ + "\\n")

signal.signal(signal.SIGUSR1, probe)
"""


def test_decode_process_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that Python imports at its start tries it in the real process, when a signal arrives."""
    (tmp_path / "sitecustomize.py").write_text(PROBE)
    report = tmp_path / "report"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PROBE_FILE", str(tmp_path / "sitecustomize.py"))
    monkeypatch.setenv("PROBE_REPORT", str(report))
    process = DecodeProcess()
    try:
        process.wait_until_ready()
        pid = process._process.pid
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1  # threads from before would not be confined
        os.kill(pid, signal.SIGUSR1)
        deadline = time.monotonic() + 60
        while not report.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert report.read_text() == "PermissionError\n"
        assert not process.has_ended
    finally:
        process.end()
