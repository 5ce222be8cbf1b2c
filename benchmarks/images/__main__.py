"""Measures decoding and serving of large images as ratios: ``make bench-images``.

Everything that is compared runs on one core, wrk on another. The two sides of a comparison run in turn, and the result
is the median of the ratios of all rounds. With another model than the shipped one, only the whole service is measured.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.images import decoding, latency, service
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
        "--model", type=Path, metavar="FOLDER", help="a published model, STORE/NAME, instead of the shipped one"
    )
    options = parser.parse_args()
    try:
        require_tools()
        lines = _of_shipped(options) if options.model is None else _of(Model(options.model), options)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(lines))
    name = "images" if options.model is None else f"images, model {options.model.name}"
    save(name, {"rounds": options.rounds, "seconds": options.seconds}, lines)
    return 0


def _of_shipped(options: argparse.Namespace) -> list[Line]:
    os.sched_setaffinity(0, {SERVER_CORE})
    lines = decoding.measure(options.rounds, options.photographs)
    lines += _of(SHIPPED, options)
    return lines + latency.measure(options.rounds, options.seconds, options.photographs)


def _of(model: Model, options: argparse.Namespace) -> list[Line]:
    os.sched_setaffinity(0, {LOAD_CORE})  # this process must not use the server's core
    return service.measure(options.rounds, options.seconds, options.photographs, model)


if __name__ == "__main__":
    sys.exit(main())
