"""Compares the service with other model servers: one TorchScript file, one answer, one core each, wrk on another core.

    python -m benchmarks.peers --peers litserve,mlserver --images digits,jpeg --rounds 5 --seconds 4

In every round, our service and the peer are restarted, in alternating order. Before the load, the answers of a peer are
compared with ours; during the load, the MSE in every answer is checked.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.errors import BenchmarkError
from benchmarks.load.wrk import LOAD_CORE, require_tools
from benchmarks.peers.environments import ENVIRONMENTS, pinned_version
from benchmarks.peers.measurement import Bench, measure_in_turn
from benchmarks.peers.servers import PEERS
from benchmarks.peers.summary import Row, summary, table
from benchmarks.peers.workloads import WORKLOADS, Workload
from benchmarks.servers import ROOT

_RESULTS: Final = ROOT / "benchmarks" / "results.json"


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints the tables and writes the figures to a file; returns the exit status."""
    options = _options(arguments)
    try:
        require_tools()
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {LOAD_CORE})  # this process must not use the server's core
    tables = []
    with tempfile.TemporaryDirectory() as scratch:
        for workload in options.images:
            try:
                rows = _compare(workload, options, Path(scratch))
            except BenchmarkError as error:
                print(f"error: our own service: {error}", file=sys.stderr)
                return 1
            _write_results(options.output, workload, rows, options.seconds)
            tables.append(table(workload, rows))
    print("", *tables, sep="\n\n")
    return 0


def _compare(workload: Workload, options: argparse.Namespace, scratch: Path) -> dict[str, Row]:
    """The results of the peers with one workload.

    Raises:
        BenchmarkError: our own service did not start or did not answer.
    """
    ours = Bench.of_service(scratch)
    expected = ours.answers(workload.images)
    rows: dict[str, Row] = {}
    for name in options.peers:
        print(f"{workload.name}, {name} {pinned_version(name)}", flush=True)
        row: Row = {"version": pinned_version(name)}
        try:
            peer = Bench.of_peer(PEERS[name], options.environments, scratch)
            rounds = measure_in_turn(ours, peer, workload, expected, options.rounds, options.seconds)
        except BenchmarkError as error:
            row |= {"failed": str(error)}
            print(f"  failed: {error}", flush=True)
        else:
            row |= summary(rounds)
        rows[name] = row
    return rows


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="peers to measure, separated by commas")
    parser.add_argument("--images", default=",".join(WORKLOADS), help="kinds of images to send, separated by commas")
    parser.add_argument(
        "--environments",
        type=Path,
        default=ENVIRONMENTS,
        help="folder of the peers' environments, which are created at first use",
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds; each runs our service and the peer")
    parser.add_argument(
        "--seconds", type=int, default=4, help="duration of the load with many connections; half of it with one"
    )
    parser.add_argument("--output", type=Path, default=_RESULTS, help="file for the figures, under the key peers")
    options = parser.parse_args(arguments)
    options.peers = _chosen(parser, "peer", options.peers, PEERS)
    options.images = [WORKLOADS[name] for name in _chosen(parser, "kind of images", options.images, WORKLOADS)]
    options.environments = options.environments.expanduser().resolve()
    return options


def _chosen(parser: argparse.ArgumentParser, what: str, value: str, names: Iterable[str]) -> list[str]:
    """The names in a list that is separated by commas; ends the program if one is unknown."""
    chosen = [name.strip() for name in value.split(",") if name.strip()]
    for name in chosen:
        if name not in names:
            parser.error(f"unknown {what} {name!r}; choose from {', '.join(names)}")
    return chosen


def _write_results(output: Path, workload: Workload, rows: Mapping[str, Row], seconds: int) -> None:
    """Writes the rows to the file of results, without changing those of other benchmarks, images and peers."""
    results: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
    machine = {"processor": _processor(), "python": platform.python_version(), "torch": version("torch")}
    kept = results.setdefault("peers", {}).setdefault(workload.name, {})
    for name, row in rows.items():
        kept[name] = {**row, "seconds": seconds, **machine}
    output.write_text(json.dumps(results, indent=2) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
