"""Which effects of an attack are failures, and the table."""

from dataclasses import replace

from benchmarks.attack.honest import HEALTH, LARGE, SMALL, Phase, Sample
from benchmarks.attack.outcome import MIB, Limits, Outcome, table

LIMITS = Limits(1000 * MIB)


def phase(*, seconds: float = 0.01, status: int = 200, kind: str = SMALL) -> Phase:
    good = [Sample(each, 0, 0.01, 200) for each in (HEALTH, SMALL, LARGE) for _ in range(10)]
    return Phase([*good, Sample(kind, 0, seconds, status)])


HARMLESS = Outcome("knock", [], "", phase(), phase(), 900 * MIB, cpu_s=0.1, stop_s=2)


def test_harmless_attack() -> None:
    assert HARMLESS.failures(LIMITS) == []


def test_every_limit_is_checked() -> None:
    seen = {
        "faults": replace(HARMLESS, faults=["a door is open"]),
        "died": replace(HARMLESS, died="ended: no room"),
        "memory": replace(HARMLESS, peak_bytes=1001 * MIB),
        "cpu": replace(HARMLESS, cpu_s=5.1),
        "stop": replace(HARMLESS, stop_s=float("inf")),
        "lost": replace(HARMLESS, among=phase(status=0)),
        "error": replace(HARMLESS, among=phase(status=504)),
        "busy": replace(HARMLESS, among=phase(status=429)),
        "small": replace(HARMLESS, among=phase(seconds=1.1)),
        "large": replace(HARMLESS, among=phase(seconds=5.1, kind=LARGE)),
        "health": replace(HARMLESS, among=Phase([Sample(HEALTH, 0, 0.06, 200)])),
    }
    assert {name: outcome.failures(LIMITS) for name, outcome in seen.items()} == {
        "faults": ["a door is open"],
        "died": ["ended: no room"],
        "memory": ["1001 MiB of 1000"],
        "cpu": ["one request took 5.1 s of CPU or more"],
        "stop": ["SIGTERM took inf s"],
        "lost": ["1 honest requests lost"],
        "error": ["1 honest requests lost"],
        "busy": ["1 honest requests got 429"],
        "small": ["small images (p99) took 1.1 s"],
        "large": ["large images (p99) took 5.1 s"],
        "health": ["/health took 0.06 s"],
    }


def test_table_has_a_row_per_attack() -> None:
    rows = table([HARMLESS, replace(HARMLESS, name="break", died="ended: no room", cpu_s=None, stop_s=None)], LIMITS)
    assert rows.splitlines()[2:] == [
        "| knock | no | 31 of 31 | 0 | 0 | 10 → 10 | 10 → 10 | 900 | 0.1 | 2.0 | pass |",
        "| break | yes | 31 of 31 | 0 | 0 | 10 → 10 | 10 → 10 | 900 | – | – | FAIL: ended: no room |",
    ]
