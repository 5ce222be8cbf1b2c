"""Long runs of the scenarios of ``benchmarks.reliability`` with the shipped model: ``make soak``.

Prints the figures, writes them to ``benchmarks/reliability.json``, and fails if a goal is missed.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeAlias

from app.inference.bundles.store import ModelStore
from benchmarks.load.server_process import SERVER_CORE
from benchmarks.load.wrk import LOAD_CORE
from benchmarks.reliability import (
    ROOT,
    BadClients,
    Drained,
    Goal,
    Overload,
    Soaked,
    Swapped,
    bad_clients,
    drained,
    overload,
    service,
    soak,
    swapped,
)

RESULTS: Final = Path(__file__).parent / "reliability.json"

_STORE: Final = ROOT / "model_store"

Figures: TypeAlias = Overload | BadClients | Drained | Swapped | Soaked


def _overloaded(_: argparse.Namespace) -> list[Overload]:
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})  # the clients would use the service's core, too
    try:
        with service(_STORE, core=SERVER_CORE) as running:
            return [asyncio.run(overload(running, seconds=10, rounds=5))]
    finally:
        os.sched_setaffinity(0, everywhere)


def _among_bad_clients(arguments: argparse.Namespace) -> list[BadClients]:
    with service(_STORE, request_timeout_s=5) as running:
        return [asyncio.run(bad_clients(running, clients=arguments.clients, seconds=30))]


def _drained(arguments: argparse.Namespace) -> list[Drained]:
    seen = []
    for _ in range(arguments.runs):
        with service(_STORE) as running:
            seen.append(asyncio.run(drained(running)))
    return seen


def _two_versions(store: Path) -> Path:
    """Publishes two versions with different weights, so that a score shows which version computed it."""
    from tests.support import make_bundle  # noqa: PLC0415  the tests are needed for this scenario only

    published = ModelStore(store)
    for seed in (1, 2):
        published.publish(*make_bundle("m", seed=seed))
    return store / "m"


def _swapped(arguments: argparse.Namespace) -> list[Swapped]:
    with tempfile.TemporaryDirectory() as folder:
        model = _two_versions(Path(folder))
        with service(model.parent, model=model.name) as running:
            return [asyncio.run(swapped(running, model, swaps=arguments.runs))]


def _soaked(arguments: argparse.Namespace) -> list[Soaked]:
    settle = min(5, arguments.minutes / 4)
    with service(_STORE) as running:
        return [asyncio.run(soak(running, minutes=arguments.minutes, settle=settle))]


SCENARIOS: Final[Mapping[str, Callable[[argparse.Namespace], Sequence[Figures]]]] = {
    "overload": _overloaded,
    "bad_clients": _among_bad_clients,
    "drained": _drained,
    "swapped": _swapped,
    "soaked": _soaked,
}


def missed(seen: Sequence[Figures]) -> list[Goal]:
    """The goals that were missed. NaN misses every goal."""
    return [goal for figures in seen for goal in figures.goals() if not goal.value <= goal.most]


def main() -> int:
    """Runs scenarios; returns 1 if a goal was missed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--only", choices=SCENARIOS, nargs="+", default=list(SCENARIOS), help="default: all")
    parser.add_argument("--minutes", type=float, default=30, help="length of the soak (default: %(default)s)")
    parser.add_argument(
        "--runs", type=int, default=20, help="number of drained processes and of swaps (default: %(default)s)"
    )
    parser.add_argument(
        "--clients", type=int, default=10_000, help="number of clients that disconnect early (default: %(default)s)"
    )
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    missed_goals: list[Goal] = []
    for name in arguments.only:
        seen = SCENARIOS[name](arguments)
        results[name] = [asdict(figures) for figures in seen]
        print(name, json.dumps(results[name], indent=2), flush=True)
        missed_goals += missed(seen)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    for goal in missed_goals:
        print(f"missed: {goal}")
    return 1 if missed_goals else 0


if __name__ == "__main__":
    sys.exit(main())
