"""The honest client counts every request that is due, also while the service does not answer."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.attack.honest import Honest

ANSWER = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers 200 to three requests, then 429 to one, and closes all other connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for number in range(1000):
                try:
                    connection, peer = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    if number < 4 and peer[0] == "127.0.0.2":
                        connection.sendall(ANSWER % (429 if number == 3 else 200))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_answers_429_and_losses_are_counted(port: int, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(b"GET / HTTP/1.1\r\n\r\n")
    honest = Honest("127.0.0.1", port, [("small", request, 20.0)])
    time.sleep(2)
    samples = honest.finish()
    statuses = [sample.status for sample in sorted(samples, key=lambda sample: sample.due_s)]
    assert statuses[:4] == [200, 200, 200, 429]
    assert set(statuses[4:]) == {0}
    assert {sample.kind for sample in samples} == {"small"}
    assert 10 < len(samples) < 45  # 20 per second, less the time to start
