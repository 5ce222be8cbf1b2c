"""Starts and measures the servers, each in turn on one core, with wrk on another."""

import http.client
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import Server, free_port, pinned_server
from benchmarks.load.wrk import check_script, post_script, run_wrk
from benchmarks.peers.answers import require_same
from benchmarks.peers.environments import install, run_command
from benchmarks.peers.servers import OURS, SERVERS, SHARED, Answer, Target
from benchmarks.peers.workloads import Workload
from benchmarks.servers import ROOT, SHIPPED

_WARM_UP_S: Final = 1
_REQUEST_TIMEOUT_S: Final = 10
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Figures:
    """The figures of one start of a server, or medians over several starts.

    Attributes:
        requests_per_s, p99_ms, cpu_ms_per_request: with all connections of the workload.
        requests_per_s_at_1, p99_ms_at_1: with one connection.
        start_s: from the start of the process to its first answer.
        memory_mib: after the load.
        errors: wrong or missing answers.
    """

    requests_per_s: float
    requests_per_s_at_1: float
    p99_ms: float
    p99_ms_at_1: float
    cpu_ms_per_request: float
    start_s: float
    memory_mib: float
    errors: float


class Bench:
    """Starts and measures one server.

    Args:
        target: the server.
        programs: folder of its programs.
        folder: its working directory.
        scratch: folder for its files.
    """

    def __init__(self, target: Target, programs: Path, folder: Path, scratch: Path) -> None:
        self.target = target
        self._programs = programs
        self._folder = folder
        self._scratch = scratch

    @classmethod
    def of_service(cls, scratch: Path) -> "Bench":
        """That of our service."""
        return cls(OURS, Path(sys.executable).parent, ROOT, scratch)

    @classmethod
    def of_peer(cls, target: Target, environments: Path, scratch: Path) -> "Bench":
        """That of a peer, whose environment is created if it is not there.

        Raises:
            BenchmarkError: the installation failed, or a program that the peer needs is missing.
        """
        if target.needs and shutil.which(target.needs[0]) is None:
            raise BenchmarkError(target.needs[1])
        bench = cls(target, install(target.name, environments / target.name), SERVERS / target.name, scratch)
        if target.prepare:
            run_command([*target.prepare(scratch)], bench._folder, bench._variables(0))
        return bench

    def answers(self, images: Sequence[bytes]) -> list[Answer]:
        """Starts the server and returns its answers to images.

        Raises:
            BenchmarkError: it did not start or did not answer.
        """
        port = free_port()
        bodies = [*map(self.target.body, images)]
        with self._running(port, bodies[0]):
            return [self._require_answer(port, body) for body in bodies]

    def measure(self, workload: Workload, expected: Sequence[Answer], seconds: int) -> Figures:
        """Starts the server, checks its answers, and measures it with one connection and with many.

        Args:
            workload: what it is sent.
            expected: our answers to the images.
            seconds: duration of the load with many connections; half of it with one.

        Raises:
            BenchmarkError: it did not start, or an answer is not as expected.
        """
        port = free_port()
        bodies = [*map(self.target.body, workload.images)]
        with self._running(port, bodies[0]) as server:
            answers = [self._require_answer(port, body) for body in bodies]
            for answer, ours in zip(answers, expected, strict=True):
                require_same(answer, ours, exact=workload.exact)
            script = post_script(self.target.path, bodies, self.target.content_type)
            script += check_script([answer["results"][0]["mse"] for answer in answers])
            url = f"http://127.0.0.1:{port}"
            run_wrk(url, script, workload.connections, _WARM_UP_S)
            # One connection first: after a high load, adaptive batching would delay single requests.
            one = run_wrk(url, script, 1, seconds / 2)
            cpu_s = server.cpu_seconds()
            many = run_wrk(url, script, workload.connections, seconds)
            cpu_s = server.cpu_seconds() - cpu_s
            return Figures(
                requests_per_s=many.requests_per_s,
                requests_per_s_at_1=one.requests_per_s,
                p99_ms=many.p99_ms,
                p99_ms_at_1=one.p99_ms,
                cpu_ms_per_request=cpu_s * 1e3 / max(1, many.requests),
                start_s=server.seconds_to_ready,
                memory_mib=server.resident_bytes() / 2**20,
                errors=many.errors + one.errors,
            )

    def _running(self, port: int, body: bytes) -> AbstractContextManager[Server]:
        command = [*self.target.command(port)]
        command[0] = shutil.which(command[0], path=f"{self._programs}:{os.environ['PATH']}") or command[0]
        ready: Callable[[], bool] = lambda: bool(self._ask(port, body))  # noqa: E731
        return pinned_server(
            command,
            ready,
            log=self._scratch / f"{self.target.name}.log",
            environment=self._variables(port),
            folder=self._folder,
        )

    def _variables(self, port: int) -> dict[str, str]:
        return {
            **_ONE_THREAD,
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "PYTHONPATH": "" if self.target is OURS else str(SHARED),
            "PYTHONDONTWRITEBYTECODE": "1",
            "BENCHMARK_BUNDLE": str(SHIPPED.version),
            "BENCHMARK_SCRATCH": str(self._scratch),
            **self.target.variables(port),
        }

    def _require_answer(self, port: int, body: bytes) -> Answer:
        """The answer of a server that is ready.

        Raises:
            BenchmarkError: it did not answer, or not with status 200.
        """
        try:
            return self._ask(port, body)
        except OSError as error:
            raise BenchmarkError(str(error)) from error

    def _ask(self, port: int, body: bytes) -> Answer:
        """The answer to one request.

        Raises:
            OSError: the server did not answer, or not with status 200, or the answer cannot be parsed.
        """
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_TIMEOUT_S)
        try:
            connection.request("POST", self.target.path, body, {"Content-Type": self.target.content_type})
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise OSError(f"status {response.status}: {content[:200]!r}")
        try:
            return self.target.answer(json.loads(content))
        except (LookupError, TypeError, ValueError) as error:
            raise OSError(f"the answer cannot be parsed: {content[:200]!r}") from error


def measure_in_turn(
    ours: Bench, peer: Bench, workload: Workload, expected: Sequence[Answer], rounds: int, seconds: int
) -> list[tuple[Figures, Figures]]:
    """Measures both servers in every round, in alternating order; returns pairs (ours, the peer's).

    Raises:
        BenchmarkError: a server did not start, or an answer is not as expected.
    """
    pairs = []
    for number in range(rounds):
        order = (ours, peer) if number % 2 == 0 else (peer, ours)
        first, second = (bench.measure(workload, expected, seconds) for bench in order)
        pair = (first, second) if order[0] is ours else (second, first)
        pairs.append(pair)
        print(f"  round {number + 1}: {_short(pair[0])} to {_short(pair[1])}", flush=True)
    return pairs


def _short(figures: Figures) -> str:
    return f"{figures.requests_per_s:.4g} and {figures.requests_per_s_at_1:.4g} requests/s"
