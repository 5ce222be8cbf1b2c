"""Two workers against one with large images: whether the service scales with the cores."""

from pathlib import Path
from typing import Final

from benchmarks.images.photographs import encoded, photographs
from benchmarks.images.service import expected
from benchmarks.load.server_process import SERVER_CORE
from benchmarks.load.wrk import LOAD_CORE, Load, check_script, post_script, run_wrk
from benchmarks.servers import PATH, SHIPPED, alternate, service, started
from benchmarks.table import Line, ratio

_CONNECTIONS: Final = 16  # eight for each of two workers
_GOAL: Final = 1.6


def measure(rounds: int, seconds: int, folder: Path | None) -> Line:
    """Requests per second of two workers on two cores, one of which wrk uses as well, and of one worker on the other.

    The arguments and errors are those of :func:`benchmarks.images.service.measure`.
    """
    golden = SHIPPED.golden_image
    images = [encoded(image, "JPEG") for image in photographs(1920, 1080, folder)]
    script = post_script(PATH, images, "image/jpeg") + check_script([expected(image, SHIPPED) for image in images])

    def load(url: str) -> Load:
        return run_wrk(url, script, _CONNECTIONS, seconds)

    with (
        started(service({"ANOMALY_WORKERS": "2"}), golden, cores=(SERVER_CORE, LOAD_CORE)) as two,
        started(service({}), golden) as one,
    ):
        runs = alternate("two workers", lambda: load(two.url), lambda: load(one.url), rounds)
    pairs = [(many.requests_per_s, single.requests_per_s) for many, single in runs]
    return ratio(
        f"1920 × 1080 JPEG: requests/s of two workers, which share a core with wrk ÷ one, {_CONNECTIONS} connections",
        pairs,
        _GOAL,
    )
