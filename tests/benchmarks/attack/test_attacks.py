"""Every attack in its short form against a real service: ``make attack ARGS=--short``, with longer latencies allowed.

Attacks with the same preparation share a service, one after another, so that this takes three minutes.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

import pytest
from _pytest.mark import ParameterSet

from benchmarks.attack.attack import Attack
from benchmarks.attack.catalogue import ATTACKS
from benchmarks.attack.outcome import MIB, Limits
from benchmarks.attack.target import Launch
from benchmarks.attack.trial import Conditions, run

pytestmark = [pytest.mark.no_cover, pytest.mark.attack]

# Other tests and the attackers share the cores with the service, so its answers come later than on a core of its own.
LIMITS = Limits(1792 * MIB, health_s=0.5, small_s=5, large_s=15)


def _groups() -> Iterator[ParameterSet]:
    for _, neighbours in groupby(ATTACKS.values(), attrgetter("prepare")):
        attacks = list(neighbours)
        yield pytest.param(attacks, id=", ".join(attack.name for attack in attacks))


@pytest.mark.parametrize("attacks", [*_groups()])
def test_attack_leaves_the_service_and_honest_clients_unharmed(attacks: Sequence[Attack], launch: Launch) -> None:
    outcomes = run(attacks, Conditions(launch, LIMITS.memory_bytes, short=True))
    failures = {outcome.name: outcome.failures(LIMITS) for outcome in outcomes}
    assert {name: faults for name, faults in failures.items() if faults} == {}
