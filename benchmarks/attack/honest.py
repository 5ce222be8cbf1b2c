"""An honest client in a process of its own: ``python -m benchmarks.attack.honest``.

It sends requests at fixed times, whether earlier ones are answered or not, from another address than the attackers.
It ends when its standard input does, waits for the answers that are due, and prints one JSON list per request: kind,
time that the request was due (``time.monotonic``), seconds to its answer, status (0: no complete answer).
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from benchmarks.errors import BenchmarkError
from benchmarks.load.clients import Connection, LostRequest, quantile_of

HEALTH: Final = "health"
SMALL: Final = "small"
LARGE: Final = "large"

_PATIENCE_S: Final = 40
_SOURCE: Final = "127.0.0.2"
_ROOT: Final = Path(__file__).resolve().parent.parent.parent

_OK, _BUSY = 200, 429


class Sample(NamedTuple):
    """One request.

    Attributes:
        kind: ``health``, ``small`` or ``large``.
        due_s: when it was sent, by the monotonic clock.
        seconds: to the answer.
        status: of the answer; 0: there was none.
    """

    kind: str
    due_s: float
    seconds: float
    status: int


@dataclass(frozen=True)
class Phase:
    """The honest requests of a time.

    Attributes:
        samples: the requests that were sent in it.
    """

    samples: Sequence[Sample]

    @property
    def answered(self) -> int:
        """Number of requests that were answered with 200."""
        return sum(each.status == _OK for each in self.samples)

    @property
    def busy(self) -> int:
        """Number of answers with 429."""
        return sum(each.status == _BUSY for each in self.samples)

    @property
    def lost(self) -> int:
        """Number of requests with no answer, or another one."""
        return len(self.samples) - self.answered - self.busy

    def latency(self, kind: Literal["health", "small", "large"], quantile: float) -> float:
        """A quantile of the seconds to an answer of any status, lost requests included; 0 without requests."""
        return quantile_of([each.seconds for each in self.samples if each.kind == kind], quantile)


class Honest:
    """The running client.

    Args:
        host, port: of the service.
        requests: (kind, file with a complete HTTP request, requests per second).
    """

    def __init__(self, host: str, port: int, requests: Sequence[tuple[str, Path, float]]) -> None:
        command = [sys.executable, "-m", "benchmarks.attack.honest", host, str(port)]
        for kind, file, rate in requests:
            command += ["--send", kind, str(file), str(rate)]
        self._process = subprocess.Popen(  # noqa: S603  a fixed command
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def finish(self) -> list[Sample]:
        """Stops sending, waits for the answers that are due, and returns all requests.

        Raises:
            BenchmarkError: the client failed, so that nothing is known.
        """
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise BenchmarkError(f"the honest client ended with status {self._process.returncode}")
        return [Sample(*json.loads(line)) for line in output.splitlines()]

    def kill(self) -> None:
        """Ends the client at once, if it has not ended."""
        self._process.kill()
        with self._process:  # closes its pipes and waits
            pass


async def _send_at_rate(
    address: tuple[str, int], kind: str, request: bytes, rate: float, stop: asyncio.Event, samples: list[Sample]
) -> None:
    idle: list[Connection] = []
    running: set[asyncio.Task[None]] = set()
    host, port = address

    async def send(due: float) -> None:
        connection = idle.pop() if idle else Connection(port, host, None if ":" in host else _SOURCE)
        try:
            reply = await asyncio.wait_for(connection.send(request), _PATIENCE_S)
            status = reply.status
            idle.append(connection)
        except (OSError, LostRequest, TimeoutError):
            status = 0
            connection.close()
        samples.append(Sample(kind, due, time.monotonic() - due, status))

    due = time.monotonic()
    while not stop.is_set():
        task = asyncio.create_task(send(due))
        running.add(task)
        task.add_done_callback(running.discard)
        due += 1 / rate
        await asyncio.sleep(max(0, due - time.monotonic()))
    await asyncio.gather(*running)
    for connection in idle:
        connection.close()


async def _run(address: tuple[str, int], kinds: Sequence[tuple[str, bytes, float]]) -> list[Sample]:
    stop, samples = asyncio.Event(), list[Sample]()
    end = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    end.add_done_callback(lambda _: stop.set())
    sending = [_send_at_rate(address, kind, request, rate, stop, samples) for kind, request, rate in kinds]
    await asyncio.gather(*sending)
    return samples


def main() -> int:
    """Sends until the end of the standard input; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack.honest", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument(
        "--send",
        nargs=3,
        action="append",
        default=[],
        metavar=("KIND", "FILE", "RATE"),
        help="a request and how many per second",
    )
    arguments = parser.parse_args()
    kinds = [(kind, Path(file).read_bytes(), float(rate)) for kind, file, rate in arguments.send]
    for sample in asyncio.run(_run((arguments.host, arguments.port), kinds)):
        print(json.dumps(sample))
    return 0


if __name__ == "__main__":
    sys.exit(main())
