"""Measures the speed of the service as ratios: ``make bench``.

The server runs on one core and wrk on the other. The two sides of a comparison run alternately for several rounds, and
the result is the median of the ratios of all rounds: the speed of a shared machine varies, a ratio hardly does. The MSE
in every answer of the service is checked.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.load.wrk import LOAD_CORE, Load, check_script, post_script, require_tools, run_wrk
from benchmarks.servers import SHIPPED, Target, alternate, ask, reference, service, started
from benchmarks.table import Line, ratio, save, table

_CONNECTIONS: Final = 32
_BOUNDARY: Final = "benchmark"
_MULTIPART: Final = f"multipart/form-data; boundary={_BOUNDARY}"
_BURSTS: Final = (64, 256)
_BURST_CONNECTIONS: Final = 2


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
    print(table(lines))
    save("serving", {"rounds": options.rounds, "seconds": options.seconds}, lines)
    return 0


def _measure(rounds: int, seconds: int) -> list[Line]:
    image = SHIPPED.golden_image
    answer, starts, memory = _first_answers(image, rounds)
    check = check_script([json.loads(answer)["results"][0]["mse"]])
    variables = {"BENCHMARK_ANSWER_BYTES": str(len(answer))}
    form, raw = _form([image]), image

    with contextlib.ExitStack() as running:
        ours = running.enter_context(started(_service(), image)).url
        floor = running.enter_context(started(reference("floor", variables), image)).url
        naive = running.enter_context(started(reference("naive"), image)).url

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
        runs = {name: alternate(name, *pair, rounds) for name, pair in pairs.items()}

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


def _service() -> Target:
    variables = {"ANOMALY_MAX_FILES": str(max(_BURSTS)), "ANOMALY_QUEUE_SIZE": str(4 * max(_BURSTS))}
    return service(variables)


def _first_answers(image: bytes, rounds: int) -> tuple[bytes, list[float], list[float]]:
    """An answer of the service; for each start, the seconds until it was ready, and its memory under load in bytes."""
    starts, memory, answer = list[float](), list[float](), b""
    for _ in range(rounds):
        with started(_service(), image) as running:
            answer = ask(running.port, image)
            run_wrk(running.url, post_script("/score", [image], "image/png"), _CONNECTIONS, 1)
            starts.append(running.server.seconds_to_ready)
            memory.append(running.server.resident_bytes())
    return answer, starts, memory


def _scaled(load: Load, size: int) -> Load:
    return Load(**{**asdict(load), "requests_per_s": load.requests_per_s * size})


def _ratio(measure: str, pairs: Sequence[tuple[Load, Load]], figure: Callable[[Load], float], goal: float) -> Line:
    return ratio(measure, [(figure(mine), figure(theirs)) for mine, theirs in pairs], goal)


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
