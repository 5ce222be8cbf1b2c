"""The number of connections is limited; those that wait for a request give way."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.api.http.connections import MOST, Connections
from app.inference.bundles.store import ModelStore
from tests.support import ROOT, free_port, make_bundle


class Connection:
    def __init__(self) -> None:
        self.is_open = True

    def abort(self) -> None:
        self.is_open = False


def test_the_connection_that_waits_for_the_longest_time_gives_way() -> None:
    connections, made = Connections(3), [Connection() for _ in range(5)]
    for each in made[:3]:
        connections.opened(each)
    connections.works(made[0])
    connections.works(made[1])
    connections.waits(made[0])  # after the third one
    for each in made[3:]:
        connections.opened(each)
    assert [each.is_open for each in made] == [False, True, False, True, True]
    connections.closed(made[1])
    connections.opened(Connection())
    assert made[3].is_open


def test_a_new_connection_is_closed_if_all_others_work() -> None:
    connections, made = Connections(1), [Connection() for _ in range(2)]
    connections.opened(made[0])
    connections.works(made[0])
    connections.opened(made[1])
    assert [each.is_open for each in made] == [True, False]
    connections.waits(made[1])  # its last callbacks
    connections.waits(made[0])
    connections.opened(Connection())
    assert not made[0].is_open


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [(256, 256, 192), (1024, 2000, 1500), (1024, 10**5, MOST), (20_000, 20_000, MOST)],
    ids=["few", "raised a little", "raised", "many"],
)
def test_limit_follows_from_the_descriptors(soft: int, hard: int, expected: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("this system allows fewer descriptors")
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        "from app.api.http.connections import most_connections; print(most_connections())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == expected


def test_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    """With 256 descriptors, 300 connections that send nothing made the service deaf for 20 s."""
    ModelStore(tmp_path / "store").publish(*make_bundle("m"))
    port = free_port()
    settings = {"MODEL_STORE": str(tmp_path / "store"), "MODEL": "m", "PORT": str(port), "DRAIN_S": "0"}
    environment = {**os.environ, **{f"ANOMALY_{name}": value for name, value in settings.items()}}
    command = ["sh", "-c", 'ulimit -n 256 && exec "$0" -m app', sys.executable]
    with contextlib.ExitStack() as opened, subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            wait_until_ready(port, process)
            for _ in range(300):
                opened.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            assert status_of_health(port) == b"200"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def wait_until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError):
            if status_of_health(port) == b"200":
                return
        time.sleep(0.1)
    raise AssertionError("the service has ended")


def status_of_health(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(12)[-3:]
