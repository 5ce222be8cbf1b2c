"""Compares the service with other model servers: one TorchScript file, one answer, one core each, wrk on another core.

    python -m benchmarks.peers --peers litserve,mlserver --rounds 5 --seconds 4

``benchmarks.peer_servers`` describes the servers. In every round, our service and the peer are restarted, in
alternating order. Before the load, the answers of a peer are compared with ours; during the load, the MSE in every
answer is checked.
"""

import argparse
import base64
import http.client
import io
import json
import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from PIL import Image, ImageChops

from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import free_port, pinned_server
from benchmarks.load.wrk import LOAD_CORE, MSE_TOLERANCE, check_script, post_script, require_tools, run_wrk
from benchmarks.peer_servers import (
    ENVIRONMENTS,
    OURS,
    PEERS,
    ROOT,
    SERVERS,
    SHARED,
    Answer,
    Target,
    create_environment,
    pinned_version,
    run_command,
)
from benchmarks.servers import SHIPPED

_RESULTS: Final = ROOT / "benchmarks" / "results.json"

_CONNECTIONS: Final = 32
_WARM_UP_S: Final = 1
_REQUEST_TIMEOUT_S: Final = 10
_IMAGES: Final = 8
_DIM: Final = 0.03  # each image is this share darker than the previous one
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Row = dict[str, Any]
"""The result of one peer: its summary, or the reason of its failure."""


@dataclass(frozen=True)
class Figures:
    """The figures of one start of a server, or medians over several starts."""

    requests_per_s_at_32: float
    requests_per_s_at_1: float
    p99_ms_at_32: float
    p99_ms_at_1: float
    cpu_ms_per_request_at_32: float
    start_s: float
    memory_mib: float
    errors: float


def main() -> int:
    """Measures, prints the table and writes the figures to a file; returns the exit status."""
    options = _options()
    try:
        require_tools()
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {LOAD_CORE})  # this process must not use the server's core
    images = _images()
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as scratch:
        ours = _Bench(OURS, Path(sys.executable).parent, ROOT, Path(scratch), images)
        try:
            expected = ours.answers()
        except BenchmarkError as error:
            print(f"error: our own service: {error}", file=sys.stderr)
            return 1
        for name in options.peers:
            print(f"{name}: {pinned_version(name)}", flush=True)
            try:
                programs = create_environment(PEERS[name], options.environments / name)
                peer = _Bench(PEERS[name], programs, SERVERS / name, Path(scratch), images)
                peer.prepare()
                rounds = _rounds(ours, peer, expected, options.rounds, options.seconds)
            except BenchmarkError as error:
                rows[name] = {"version": pinned_version(name), "failed": str(error)}
                print(f"  failed: {error}", flush=True)
            else:
                rows[name] = {"version": pinned_version(name), **_summary(rounds)}
    _write_results(options.output, rows, options)
    print(f"\n{_table(rows)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="peers to measure, separated by commas")
    parser.add_argument(
        "--environments",
        type=Path,
        default=ENVIRONMENTS,
        help="folder of the peers' environments, which are created at first use",
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds; each runs our service and the peer")
    parser.add_argument(
        "--seconds", type=int, default=4, help=f"duration of the load at {_CONNECTIONS} connections; half of it at 1"
    )
    parser.add_argument("--output", type=Path, default=_RESULTS, help="file for the figures, under the key peers")
    options = parser.parse_args()
    options.peers = [name.strip() for name in options.peers.split(",") if name.strip()]
    for name in options.peers:
        if name not in PEERS:
            parser.error(f"unknown peer {name!r}; choose from {', '.join(PEERS)}")
    options.environments = options.environments.expanduser().resolve()
    return options


class _Bench:
    """Starts and measures one server."""

    def __init__(self, target: Target, programs: Path, folder: Path, scratch: Path, images: Sequence[bytes]) -> None:
        self.target = target
        self._programs = programs
        self._folder = folder
        self._scratch = scratch
        self._bodies = [target.body(image) for image in images]

    def prepare(self) -> None:
        """Runs the command that the server needs before its first start."""
        if self.target.prepare:
            run_command([*self.target.prepare(self._scratch)], self._folder, self._variables(0))

    def answers(self) -> list[Answer]:
        """Starts the server and returns its answers to the images.

        Raises:
            BenchmarkError: it did not start or did not answer.
        """
        port = free_port()
        with self._running(port, lambda: bool(self._ask(port, self._bodies[0]))):
            return [self._require_answer(port, body) for body in self._bodies]

    def measure(self, expected: Sequence[Answer], seconds: int) -> Figures:
        """Starts the server, checks its answers, and measures it with one connection and with many.

        Raises:
            BenchmarkError: it did not start, or an answer is not as expected.
        """
        port = free_port()
        with self._running(port, lambda: bool(self._ask(port, self._bodies[0]))) as server:
            for body, answer in zip(self._bodies, expected, strict=True):
                _require_same(self._require_answer(port, body), answer)
            script = post_script(self.target.path, self._bodies, self.target.content_type)
            script += check_script([answer["results"][0]["mse"] for answer in expected])
            url = f"http://127.0.0.1:{port}"
            run_wrk(url, script, _CONNECTIONS, _WARM_UP_S)
            # One connection first: after a high load, adaptive batching would delay single requests.
            one = run_wrk(url, script, 1, seconds / 2)
            cpu_s = server.cpu_seconds()
            many = run_wrk(url, script, _CONNECTIONS, seconds)
            cpu_s = server.cpu_seconds() - cpu_s
            return Figures(
                requests_per_s_at_32=many.requests_per_s,
                requests_per_s_at_1=one.requests_per_s,
                p99_ms_at_32=many.p99_ms,
                p99_ms_at_1=one.p99_ms,
                cpu_ms_per_request_at_32=cpu_s * 1e3 / max(1, many.requests),
                start_s=server.seconds_to_ready,
                memory_mib=server.resident_bytes() / 2**20,
                errors=many.errors + one.errors,
            )

    def _running(self, port: int, ready: Callable[[], bool]) -> Any:
        command = [*self.target.command(port)]
        command[0] = shutil.which(command[0], path=f"{self._programs}:{os.environ['PATH']}") or command[0]
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


def _rounds(
    ours: _Bench, peer: _Bench, expected: Sequence[Answer], rounds: int, seconds: int
) -> list[tuple[Figures, Figures]]:
    """Measures both servers in every round, in alternating order; returns pairs (ours, the peer's)."""
    pairs = []
    for number in range(rounds):
        order = (ours, peer) if number % 2 == 0 else (peer, ours)
        first, second = (bench.measure(expected, seconds) for bench in order)
        pair = (first, second) if order[0] is ours else (second, first)
        pairs.append(pair)
        print(f"  round {number + 1}: {_short(pair[0])} to {_short(pair[1])}", flush=True)
    return pairs


def _short(figures: Figures) -> str:
    return f"{figures.requests_per_s_at_32:.0f} and {figures.requests_per_s_at_1:.0f} requests/s"


def _summary(rounds: Sequence[tuple[Figures, Figures]]) -> Row:
    """Medians of the figures and of the ratios over all rounds, and the sums of the errors."""
    ours, peer = ([asdict(pair[side]) for pair in rounds] for side in (0, 1))
    figures = [name for name in ours[0] if name != "errors"]
    return {
        "ours_to_peer": {
            name: median(mine[name] / theirs[name] for mine, theirs in zip(ours, peer, strict=True)) for name in figures
        },
        "ours": {name: median(each[name] for each in ours) for name in figures},
        "peer": {name: median(each[name] for each in peer) for name in figures},
        "errors": {"ours": sum(each["errors"] for each in ours), "peer": sum(each["errors"] for each in peer)},
        "rounds": len(rounds),
    }


def _table(rows: Mapping[str, Row]) -> str:
    """The ratios ours ÷ peer as a Markdown table."""
    lines = [
        f"| ours ÷ peer | requests/s at {_CONNECTIONS} | at 1 connection | p99 at {_CONNECTIONS} "
        "| processor time of a request | start | memory | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        label = f"{name} {row['version']}"
        if "failed" in row:
            lines.append(f"| {label} | {row['failed']} |")
            continue
        ratio, ours, peer, errors = row["ours_to_peer"], row["ours"], row["peer"], row["errors"]
        cells = [
            f"{ratio[figure]:.2f} × ({ours[figure]:.{digits}f} ÷ {peer[figure]:.{digits}f}{unit})"
            for figure, digits, unit in (
                ("requests_per_s_at_32", 0, ""),
                ("requests_per_s_at_1", 0, ""),
                ("p99_ms_at_32", 0, " ms"),
                ("cpu_ms_per_request_at_32", 2, " ms"),
                ("start_s", 1, " s"),
                ("memory_mib", 0, " MiB"),
            )
        ]
        lines.append(f"| {label} | {' | '.join(cells)} | {errors['ours']:.0f}, {errors['peer']:.0f} |")
    return "\n".join(lines)


def _write_results(output: Path, rows: Mapping[str, Row], options: argparse.Namespace) -> None:
    """Writes the rows to the file of results, without changing those of other benchmarks and peers."""
    results = json.loads(output.read_text()) if output.exists() else {}
    machine = {
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    for name, row in rows.items():
        results.setdefault("peers", {})[name] = {**row, "seconds": options.seconds, **machine}
    output.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")


def _require_same(answer: Answer, expected: Answer) -> None:
    """Compares an answer with ours. Each of our fields must be the same; numbers may differ by rounding.

    Raises:
        BenchmarkError: a field differs.
    """
    mine, theirs = expected["results"][0], answer["results"][0]
    # If rounding moves a score past a calibration score, the p-value changes by one rank.
    tolerances = {"mse": (MSE_TOLERANCE, 0.0), "score": (MSE_TOLERANCE, 0.0), "p_value": (0.0, 0.002)}
    different = [name for name in ("model", "threshold", "false_alarm_rate") if answer.get(name) != expected[name]]
    for name, value in mine.items():
        other = theirs.get(name)
        if name in tolerances:
            relative, absolute = tolerances[name]
            same = isinstance(other, float) and math.isclose(other, value, rel_tol=relative, abs_tol=absolute)
        elif name == "reconstruction":
            same = isinstance(other, str) and _same_image(other, value)
        else:
            same = other == value
        if not same:
            different.append(name)
    if different:
        raise BenchmarkError(f"its answer differs from ours in {', '.join(different)}")


def _same_image(one: str, other: str) -> bool:
    """Whether the images of two data URIs are equal, up to one grey level."""
    images = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in (one, other)]
    if len({(image.mode, image.size) for image in images}) > 1:
        return False
    return int(ImageChops.difference(*images).getextrema()[1]) <= 1  # type: ignore[arg-type]


def _images() -> list[bytes]:
    """Different normal images: darkened copies of the model's golden image."""
    golden = Image.open(io.BytesIO(SHIPPED.golden_image))
    files = []
    for number in range(1, _IMAGES + 1):
        buffer = io.BytesIO()
        golden.point([round(level * (1 - _DIM * number)) for level in range(256)]).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
