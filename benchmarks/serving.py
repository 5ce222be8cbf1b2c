"""Measures the speed of the service as ratios: ``make bench``.

The server runs on one core and wrk on the other. The two sides of a comparison run alternately for several rounds, and
the result is the median of the ratios of all rounds: the speed of a shared machine varies, a ratio hardly does. The MSE
in every answer of the service is checked.
"""

import argparse
import base64
import contextlib
import http.client
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.errors import BenchmarkError
from benchmarks.load.server_process import Server, free_port, pinned_server
from benchmarks.load.wrk import LOAD_CORE, Load, check_script, post_script, require_tools, run_wrk

_ROOT: Final = Path(__file__).resolve().parent.parent
_RESULTS: Final = _ROOT / "benchmarks" / "results.json"
_MODEL: Final = "mnist-5"

_CONNECTIONS: Final = 32
_OK: Final = 200
_BOUNDARY: Final = "benchmark"
_MULTIPART: Final = f"multipart/form-data; boundary={_BOUNDARY}"
_BURSTS: Final = (64, 256)
_BURST_CONNECTIONS: Final = 2


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        measure: what is measured.
        ours, other: medians of the two sides, in the unit of the measure.
        value: the result: the median of the ratios, or a figure of the service itself.
        goal: the goal for ``value``, as text.
        reached: whether ``value`` reaches it.
    """

    measure: str
    ours: float
    other: float | None
    value: float
    goal: str
    reached: bool


@dataclass(frozen=True)
class Target:
    """A server: its command, environment variables and the path for images."""

    name: str
    command: Sequence[str]
    path: str
    variables: Mapping[str, str]


def main() -> int:
    """Measures, prints the table and writes the figures to a file; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds; each runs both sides")
    parser.add_argument("--seconds", type=int, default=4, help="duration of a run")
    options = parser.parse_args()
    try:
        require_tools()
        os.sched_setaffinity(0, {LOAD_CORE})  # this process must not use the server's core
        lines = _measure(options.rounds, options.seconds)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(_table(lines))
    results = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    results["serving"] = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "lines": [asdict(line) for line in lines],
    }
    _RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _measure(rounds: int, seconds: int) -> list[Line]:
    image = _golden_image()
    answer, starts, memory = _first_answers(image, rounds)
    check = check_script([json.loads(answer)["results"][0]["mse"]])
    bundle = _ROOT / "model_store" / _MODEL
    variables = {
        "BENCHMARK_ANSWER_BYTES": str(len(answer)),
        "BENCHMARK_BUNDLE": str(bundle / (bundle / "CURRENT").read_text().strip()),
    }
    form, raw = _form([image]), image

    with contextlib.ExitStack() as running:
        ours = running.enter_context(_running(_ours(), image))
        floor = running.enter_context(_running(_reference("floor", variables), image))
        naive = running.enter_context(_running(_reference("naive", variables), image))

        def load(url: str, body: bytes, content_type: str, *, query: str = "", checked: str = check,
                 connections: int = _CONNECTIONS) -> Callable[[], Load]:  # fmt: skip
            script = post_script("/score" + query, [body], content_type) + checked
            return lambda: run_wrk(url, script, connections, seconds)

        plain = load(ours, raw, "image/png")
        pairs: dict[str, tuple[Callable[[], Load], Callable[[], Load]]] = {
            "floor": (plain, load(floor, raw, "image/png", checked="")),
            "multipart": (load(ours, form, _MULTIPART), load(floor, form, _MULTIPART, checked="")),
            "naive": (plain, load(naive, raw, "image/png")),
            "numbers": (load(ours, raw, "image/png", query="?include="), plain),
            **{
                f"burst {size}": (
                    load(ours, _form([image] * size), _MULTIPART, connections=_BURST_CONNECTIONS),
                    plain,
                )
                for size in _BURSTS
            },
        }
        plain()  # warm-up
        runs = {name: _alternate(name, *pair, rounds) for name, pair in pairs.items()}

    def rate(load: Load) -> float:
        return load.requests_per_s

    lines = [
        _ratio("requests/s ÷ a bare ASGI app, raw PNG, 32 connections", runs["floor"], rate, 0.15),
        _ratio("the same, multipart with one file", runs["multipart"], rate, 0.12),
        _ratio("requests/s ÷ a naive FastAPI app, 32 connections", runs["naive"], rate, 3),
        _ratio("p99 latency (ms) ÷ the bare ASGI app's, 32 connections", runs["floor"], lambda load: load.p99_ms, -4),
        _ratio("requests/s with numbers alone ÷ the default answer", runs["numbers"], rate, 1.2),
    ]
    for size in _BURSTS:
        many = [(_scaled(burst, size), single) for burst, single in runs[f"burst {size}"]]
        lines.append(_ratio(f"images/s, {size} in a request ÷ one in a request", many, rate, 3))
    start, resident = median(starts), median(memory) / 2**20
    lines += [
        Line("seconds from process start to the first good answer", start, None, start, "≤ 4", start <= 4),  # noqa: PLR2004
        Line("MB of memory of one worker", resident, None, resident, "≤ 300", resident <= 300),  # noqa: PLR2004
    ]
    return lines


def _ours() -> Target:
    variables = {"ANOMALY_LOG_FORMAT": "json", "ANOMALY_MAX_FILES": str(max(_BURSTS)),
                 "ANOMALY_QUEUE_SIZE": str(4 * max(_BURSTS))}  # fmt: skip
    return Target("ours", [sys.executable, "-m", "app"], "/score", variables)


def _reference(name: str, variables: Mapping[str, str]) -> Target:
    command = [
        sys.executable, "-m", "uvicorn", f"benchmarks.reference.{name}:app",
        "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    return Target(name, command, "/score", variables)


@contextlib.contextmanager
def _started(target: Target, image: bytes) -> Iterator[tuple[Server, int]]:
    port = free_port()
    command, variables = [*target.command], dict(target.variables)
    if target.name == "ours":
        variables["ANOMALY_PORT"] = str(port)
    else:
        command += ["--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with pinned_server(
            command, lambda: bool(_ask(port, target.path, image)), log=log, environment=variables, folder=_ROOT
        ) as server:
            yield server, port


@contextlib.contextmanager
def _running(target: Target, image: bytes) -> Iterator[str]:
    with _started(target, image) as (_, port):
        yield f"http://127.0.0.1:{port}"


def _ask(port: int, path: str, image: bytes) -> bytes:
    """The body of an answer; empty if the status is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, image, {"Content-Type": "image/png"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    return content if response.status == _OK else b""


def _first_answers(image: bytes, rounds: int) -> tuple[bytes, list[float], list[float]]:
    """An answer of the service; for each start, the seconds until it was ready, and its memory under load in bytes."""
    starts, memory, answer = list[float](), list[float](), b""
    for _ in range(rounds):
        with _started(_ours(), image) as (server, port):
            answer = _ask(port, "/score", image)
            run_wrk(f"http://127.0.0.1:{port}", post_script("/score", [image], "image/png"), _CONNECTIONS, 1)
            starts.append(server.seconds_to_ready)
            memory.append(server.resident_bytes())
    return answer, starts, memory


def _alternate(name: str, ours: Callable[[], Load], other: Callable[[], Load], rounds: int) -> list[tuple[Load, Load]]:
    """Measures both sides in every round, in alternating order.

    Raises:
        BenchmarkError: an answer was wrong.
    """
    pairs = []
    for number in range(rounds):
        mine, theirs = (ours(), other()) if number % 2 == 0 else (other(), ours())[::-1]
        if mine.errors or theirs.errors:
            raise BenchmarkError(f"{name}: {mine.errors} and {theirs.errors} answers were wrong")
        print(f"{name:12} {mine.requests_per_s:9.0f} {theirs.requests_per_s:9.0f} requests/s", flush=True)
        pairs.append((mine, theirs))
    return pairs


def _scaled(load: Load, size: int) -> Load:
    return Load(**{**asdict(load), "requests_per_s": load.requests_per_s * size})


def _ratio(measure: str, pairs: Sequence[tuple[Load, Load]], figure: Callable[[Load], float], goal: float) -> Line:
    """A line with the median ratio; a negative goal is an upper limit."""
    value = median(figure(mine) / figure(theirs) for mine, theirs in pairs)
    return Line(
        measure,
        median(figure(mine) for mine, _ in pairs),
        median(figure(theirs) for _, theirs in pairs),
        value,
        f"≥ {goal:g}" if goal > 0 else f"≤ {-goal:g}",
        value >= goal if goal > 0 else value <= -goal,
    )


def _table(lines: Sequence[Line]) -> str:
    rows = ["| measure | ours | other | result | goal |", "|---|---|---|---|---|"]
    for line in lines:
        other = "" if line.other is None else f"{line.other:,.4g}"
        mark = "" if line.reached else ", missed"
        rows.append(f"| {line.measure} | {line.ours:,.4g} | {other} | **{line.value:.3g}** | {line.goal}{mark} |")
    return "\n".join(rows)


def _golden_image() -> bytes:
    """The golden image of the shipped model, one of its calibration images."""
    folder = _ROOT / "model_store" / _MODEL
    manifest: dict[str, Any] = json.loads(
        (folder / (folder / "CURRENT").read_text().strip() / "manifest.json").read_text()
    )
    return base64.b64decode(manifest["golden"]["image"])


def _form(images: Sequence[bytes]) -> bytes:
    parts = b"".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{index}.png"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + image
        + b"\r\n"
        for index, image in enumerate(images)
    )
    return parts + f"--{_BOUNDARY}--\r\n".encode()


if __name__ == "__main__":
    sys.exit(main())
