"""The memory of a worker at rest, and while it decodes two large images at once."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.images.photographs import encoded, photographs
from benchmarks.load.server_process import Server
from benchmarks.servers import SHIPPED, ask, service, started
from benchmarks.table import Line

_WIDTH, _HEIGHT = 5760, 4320  # 25 megapixels, the largest that the service accepts by default
_FORMATS: Final = ("JPEG", "WEBP")
_AT_ONCE: Final = 2
_IMAGES: Final = 6  # of each format, so that two are in work at any time
_SAMPLE_S: Final = 0.01
_REST_MB: Final = 300
_PEAK_MB: Final = 700
_MIB: Final = 2**20


def measure(folder: Path | None) -> list[Line]:
    """A line for the memory at rest, and one for the peak with each format.

    The service is started anew for each format. Memory is that of all its processes; pages that they share count once.

    Args:
        folder: of photographs; None: a computed one.

    Raises:
        BenchmarkError: the service does not start, or an image was not scored.
    """
    photograph = photographs(_WIDTH, _HEIGHT, folder)[0]
    measured = {each: _rest_and_peak(encoded(photograph, each)) for each in _FORMATS}
    rest = max(rest for rest, _ in measured.values())
    lines = [Line("MB of memory of one worker at rest", rest, None, rest, f"≤ {_REST_MB}", rest <= _REST_MB)]
    for each, (before, peak) in measured.items():
        measure = f"MB at the peak with two {_WIDTH} × {_HEIGHT} {each} in work, and at rest"
        lines.append(Line(measure, peak, before, peak, f"≤ {_PEAK_MB}", peak <= _PEAK_MB))
    return lines


def _rest_and_peak(image: bytes) -> tuple[float, float]:
    """In MiB."""
    with started(service({}), SHIPPED.golden_image) as running, ThreadPoolExecutor(_AT_ONCE) as pool:
        rest = running.server.resident_bytes()
        answers = [pool.submit(ask, running.port, image) for _ in range(_IMAGES)]
        peak = _peak(running.server, answers)
        if not all(answer.result() for answer in answers):
            raise BenchmarkError("a large image was not scored")
    return rest / _MIB, peak / _MIB


def _peak(server: Server, answers: list[Future[bytes]]) -> int:
    """The most bytes of memory until all answers are there."""
    peak = 0
    while not all(answer.done() for answer in answers):
        peak = max(peak, server.resident_bytes())
        time.sleep(_SAMPLE_S)
    return peak
