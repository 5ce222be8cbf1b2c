"""Measures decoding and serving of large images as ratios: ``make bench-images``.

Everything that is compared runs on one core, wrk on another; of two workers, one shares its core with wrk. The two
sides of a comparison run in turn, and the result is the median of the ratios of all rounds. With another model than the
shipped one, only the whole service is measured.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.images import decoding, latency, memory, service, workers
from benchmarks.load.server_process import SERVER_CORE
from benchmarks.load.wrk import LOAD_CORE, require_tools
from benchmarks.servers import SHIPPED, Model
from benchmarks.table import Line, save, table


def main() -> int:
    """Measures, prints the table and writes the figures to a file; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.images", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds; each runs both sides")
    parser.add_argument("--seconds", type=int, default=4, help="duration of a run of the service")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="images instead of a computed one")
    parser.add_argument(
        "--model", type=Path, default=SHIPPED.folder, metavar="STORE/NAME", help="a published model to serve"
    )
    options = parser.parse_args()
    model = Model(options.model)
    try:
        require_tools()
        lines = _measure(model, options.rounds, options.seconds, options.photographs)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(lines))
    key = "images" if model == SHIPPED else f"images, model {model.folder.name}"
    save(key, {"rounds": options.rounds, "seconds": options.seconds}, lines)
    return 0


def _measure(model: Model, rounds: int, seconds: int, folder: Path | None) -> list[Line]:
    """All lines for the shipped model; for another one, those that depend on the model."""
    if model != SHIPPED:
        os.sched_setaffinity(0, {LOAD_CORE})
        return service.measure(rounds, seconds, folder, model)
    os.sched_setaffinity(0, {SERVER_CORE})
    lines = decoding.measure(rounds, folder)
    os.sched_setaffinity(0, {LOAD_CORE})  # this process must not use the server's core
    lines += service.measure(rounds, seconds, folder)
    lines += latency.measure(rounds, seconds, folder)
    lines.append(workers.measure(rounds, seconds, folder))
    return lines + memory.measure(folder)


if __name__ == "__main__":
    sys.exit(main())
