"""Attacks the service and prints a table; ``make attack``. Linux only.

Each attack runs against ``python -m app`` with the shipped model on one core, in processes whose memory is limited. An
honest client beside it sends images and asks for ``/health``. SIGTERM is sent while the attack goes on. The exit status
is 1 if anything dies, an honest request is lost, or a limit is exceeded.
"""

import argparse
import os
import sys

from benchmarks.attack.catalogue import ATTACKS
from benchmarks.attack.outcome import MIB, Limits, Outcome, table
from benchmarks.attack.target import launcher, limited_by_cgroup
from benchmarks.attack.trial import Conditions, run


def main() -> int:
    """Runs the attacks; returns 1 if one of them had an effect beyond the limits, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(ATTACKS)}")
    parser.add_argument("--short", action="store_true", help="smaller counts and shorter times, as in the test suite")
    parser.add_argument(
        "--memory-mib", type=int, default=1792, help="memory limit of the service, MiB (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in ATTACKS]:
        parser.error(f"no attack {unknown[0]!r}; there are {', '.join(ATTACKS)}")
    core = max(os.sched_getaffinity(0))
    _leave(core)
    limits = Limits(arguments.memory_mib * MIB)
    enforced = "a cgroup (systemd-run)" if limited_by_cgroup() else "a watch on its memory, no cgroup being available"
    print(f"memory limit: {arguments.memory_mib} MiB, enforced by {enforced}; core {core}", flush=True)
    conditions = Conditions(launcher(core), limits.memory_bytes, arguments.short)
    outcomes: list[Outcome] = []
    for name in arguments.names or ATTACKS:
        (outcome,) = run([ATTACKS[name]], conditions)
        outcomes.append(outcome)
        remarks = outcome.failures(limits) or ["pass"]
        print(f"{name}: {'; '.join([*remarks, *outcome.notes])}", flush=True)
    print(f"\n{table(outcomes, limits)}")
    return 1 if any(outcome.failures(limits) for outcome in outcomes) else 0


def _leave(core: int) -> None:
    """Moves this process and its clients to the other cores, if there are any."""
    others = os.sched_getaffinity(0) - {core}
    if others:
        os.sched_setaffinity(0, others)


if __name__ == "__main__":
    sys.exit(main())
