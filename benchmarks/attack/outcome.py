"""What an attack did, the limits that the service must keep, and the table of all attacks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.attack.honest import HEALTH, LARGE, SMALL, Phase

MIB: Final = 2**20

STOP_S: Final = 26
"""Most seconds from SIGTERM to the end of the process, as docs/operations.md promises."""

CPU_S: Final = 5
"""Most processor seconds of one request with one image."""


@dataclass(frozen=True)
class Limits:
    """Limits that depend on where an attack runs.

    Attributes:
        memory_bytes: of all processes together.
        health_s: median latency of ``/health``.
        small_s: p99 of 28 × 28 images, of which one takes a millisecond.
        large_s: p99 of 640 × 640 images.
    """

    memory_bytes: int
    health_s: float = 0.05
    small_s: float = 1
    large_s: float = 5


@dataclass(frozen=True)
class Outcome:
    """What an attack did.

    Attributes:
        name: of the attack.
        faults: what the attack itself found wrong.
        died: why the service ended, or what was killed; empty if it lived.
        alone: honest requests before the attack.
        among: honest requests during it.
        peak_bytes: memory of all processes.
        cpu_s: processor seconds of the worst single request; None: not measured.
        stop_s: seconds from SIGTERM during the attack to the end; None: not measured.
        notes: figures that are no faults.
    """

    name: str
    faults: Sequence[str]
    died: str
    alone: Phase
    among: Phase
    peak_bytes: int
    cpu_s: float | None = None
    stop_s: float | None = None
    notes: Sequence[str] = ()

    def failures(self, limits: Limits) -> list[str]:
        """Everything that is beyond its limit, as phrases."""
        return [*self.faults, *self._of_the_service(limits), *self._of_honest_clients(limits)]

    def _of_the_service(self, limits: Limits) -> Iterator[str]:
        if self.died:
            yield self.died
        if self.peak_bytes > limits.memory_bytes:
            yield f"{self.peak_bytes / MIB:.0f} MiB of {limits.memory_bytes / MIB:.0f}"
        if self.cpu_s is not None and self.cpu_s > CPU_S:
            yield f"one request took {self.cpu_s:.1f} s of CPU or more"
        if self.stop_s is not None and self.stop_s > STOP_S:
            yield f"SIGTERM took {self.stop_s:.0f} s"

    def _of_honest_clients(self, limits: Limits) -> Iterator[str]:
        if self.among.lost:
            yield f"{self.among.lost} honest requests lost"
        if self.among.busy:
            yield f"{self.among.busy} honest requests got 429"
        latencies = (
            ("/health took", self.among.latency(HEALTH, 0.5), limits.health_s),
            ("small images (p99) took", self.among.latency(SMALL, 0.99), limits.small_s),
            ("large images (p99) took", self.among.latency(LARGE, 0.99), limits.large_s),
        )
        for what, seconds, most in latencies:
            if seconds > most:
                yield f"{what} {seconds:.3g} s"


def table(outcomes: Sequence[Outcome], limits: Limits) -> str:
    """The outcomes as a Markdown table."""
    head = (
        "attack", "died", "honest answered", "429", "lost", "p50 alone → among, ms", "p99 alone → among, ms",
        "peak MiB", "CPU s", "stop s", "verdict",
    )  # fmt: skip
    rows = [head, tuple("---" for _ in head), *(_row(each, limits) for each in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(outcome: Outcome, limits: Limits) -> tuple[str, ...]:
    failures = outcome.failures(limits)
    among = outcome.among
    return (
        outcome.name,
        "yes" if outcome.died else "no",
        f"{among.answered} of {len(among.samples)}",
        str(among.busy),
        str(among.lost),
        *(
            f"{outcome.alone.latency(SMALL, quantile) * 1e3:.0f} → {among.latency(SMALL, quantile) * 1e3:.0f}"
            for quantile in (0.5, 0.99)
        ),
        f"{outcome.peak_bytes / MIB:.0f}",
        "–" if outcome.cpu_s is None else f"{outcome.cpu_s:.1f}",
        "–" if outcome.stop_s is None else f"{outcome.stop_s:.1f}",
        "FAIL: " + "; ".join(failures) if failures else "pass",
    )
