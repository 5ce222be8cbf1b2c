"""Confinement by Landlock: what a process may still do, and that decode processes are confined."""

import socket
import subprocess
import sys
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


def test_decode_processes_are_confined() -> None:
    """Of what :func:`confine` does, the kernel shows this flag."""
    process = DecodeProcess()
    process.wait_until_ready()
    status = Path(f"/proc/{process._process.pid}/status").read_text()
    process.end()
    assert "NoNewPrivs:\t1" in status
