"""Latency with large images: what the service adds to decoding and the model, and how long small images wait."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Final

import torch

from app.inference.images.decoding import decode
from benchmarks.errors import BenchmarkError
from benchmarks.images.photographs import encoded, photographs
from benchmarks.images.service import MAX_PIXELS, expected, load_network
from benchmarks.load.server_process import SERVER_CORE
from benchmarks.load.wrk import LOAD_CORE, Load, check_script, post_script, run_wrk
from benchmarks.servers import PATH, SHIPPED, alternate, service, started
from benchmarks.table import Line, ratio

_CONNECTIONS: Final = 2  # of small images, and as many of large ones
_AHEAD_S: Final = 1  # that the large images begin before the small ones
_TIMES: Final = 20
_OVERHEAD_MS: Final = 1.0
_P99: Final = 3.0


def measure(rounds: int, seconds: int, folder: Path | None) -> list[Line]:
    """Two lines: the p99 of small images beside large ones ÷ alone, and what the service adds to one image, in ms.

    Args:
        rounds: each runs both sides.
        seconds: duration of a run.
        folder: of photographs; None: a computed one.

    Raises:
        BenchmarkError: the service does not start, or gave a wrong answer.
    """
    golden = SHIPPED.golden_image
    with started(service({}), golden) as running:
        return [
            _beside_large(running.url, golden, rounds, seconds, folder),
            _overhead(running.url, rounds, seconds, folder),
        ]


def _beside_large(url: str, small: bytes, rounds: int, seconds: int, folder: Path | None) -> Line:
    large = post_script(PATH, [encoded(image, "JPEG") for image in photographs(4000, 3000, folder)], "image/jpeg")
    script = post_script(PATH, [small], "image/png") + check_script([expected(small, SHIPPED)])

    def alone() -> Load:
        return run_wrk(url, script, _CONNECTIONS, seconds)

    def beside() -> Load:
        with ThreadPoolExecutor(1) as pool:
            stream = pool.submit(run_wrk, url, large, _CONNECTIONS, seconds + 2 * _AHEAD_S)
            time.sleep(_AHEAD_S)
            load = alone()
        if stream.result().errors:
            raise BenchmarkError(f"{stream.result().errors} answers for large images were wrong")
        return load

    name = f"28 × 28 PNG beside 4000 × 3000 JPEG, {_CONNECTIONS} connections each"
    pairs = [(one.p99_ms, other.p99_ms) for one, other in alternate("beside large", beside, alone, rounds)]
    return ratio(f"{name}: p99 in ms ÷ alone", pairs, -_P99)


def _overhead(url: str, rounds: int, seconds: int, folder: Path | None) -> Line:
    image = encoded(photographs(1920, 1080, folder)[0], "JPEG")
    script = post_script(PATH, [image], "image/jpeg") + check_script([expected(image, SHIPPED)])
    model, spec = load_network(SHIPPED)

    def directly() -> None:
        with torch.inference_mode():
            model(decode(image, spec, max_pixels=MAX_PIXELS).tensor[None])

    pairs = []
    for _ in range(rounds):
        served = run_wrk(url, script, 1, seconds).p50_ms
        os.sched_setaffinity(0, {SERVER_CORE})
        pairs.append((served, _milliseconds(directly)))
        os.sched_setaffinity(0, {LOAD_CORE})
    added = median(served - alone for served, alone in pairs)
    served, alone = (median(side) for side in zip(*pairs, strict=True))
    measure = "1920 × 1080 JPEG, one connection: p50 in ms − decoding and model alone"
    return Line(measure, served, alone, added, f"≤ {_OVERHEAD_MS:g}", added <= _OVERHEAD_MS)


def _milliseconds(work: Callable[[], None]) -> float:
    """The median time on the clock, after a first call that does not count."""
    work()
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1000 * median(times)
