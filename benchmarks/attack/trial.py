"""Runs attacks against one service: an honest client alone, then beside each attack, then SIGTERM during the last."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.attack.attack import Arena, Attack, Findings
from benchmarks.attack.honest import HEALTH, LARGE, SMALL, Honest, Phase, Sample
from benchmarks.attack.outcome import STOP_S, Outcome
from benchmarks.attack.target import Launch, Target, last_line, target
from benchmarks.attack.wire import post, request
from benchmarks.errors import BenchmarkError
from benchmarks.reliability import ROOT, image

_STRIKE_S: Final = 150
_LEAD_S: Final = 1.5
_QUIET_SHARE: Final = 0.15  # of a core, beyond what the honest client takes
_NOTHING: Final = Phase([])


@dataclass(frozen=True)
class Conditions:
    """How attacks are run.

    Attributes:
        launch: starts the service.
        limit_bytes: memory of all its processes.
        short: whether counts and times are small.
    """

    launch: Launch
    limit_bytes: int
    short: bool


def run(attacks: Sequence[Attack], conditions: Conditions) -> list[Outcome]:
    """Runs attacks with the same preparation one after another against one service."""
    with tempfile.TemporaryDirectory(prefix="anomaly-attack-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "model_store", folder / "store")
        settings = {"model_store": folder / "store", **attacks[0].prepare(folder)}
        try:
            with target(conditions.launch, folder, conditions.limit_bytes, settings) as running:
                arena = Arena(running, folder, conditions.short)
                return asyncio.run(_run_all(attacks, arena, str(settings.get("api_keys", ""))))
        except BenchmarkError as error:
            return [_not_started(attack, str(error)) for attack in attacks]


async def _run_all(attacks: Sequence[Attack], arena: Arena, key: str) -> list[Outcome]:
    running = arena.target
    with _honest_client(arena, key) as honest:
        await asyncio.sleep(arena.pick(2, 0.5))  # its start
        began, cpu_before = time.monotonic(), running.cpu_seconds()
        await asyncio.sleep(arena.pick(5, 1.5))
        alone = _Window(began, time.monotonic())
        honest_share = (running.cpu_seconds() - cpu_before) / alone.seconds
        strikes = [await _strike(attack, arena, honest_share) for attack in attacks]
        samples = await asyncio.to_thread(honest.finish)
    if not _death(running):
        seconds = await _stop_during(attacks[-1], arena)
        killed = "killed at the memory limit while it ended" if running.memory.killed else ""
        strikes[-1] = replace(strikes[-1], stop_s=seconds, died=killed, peak_bytes=running.memory.peak_bytes)
    return [
        Outcome(
            name=attack.name,
            faults=strike.findings.faults,
            died="" if attack.ends_processes else strike.died,
            alone=alone.phase(samples),
            among=_NOTHING if attack.ends_processes else strike.window.phase(samples),
            peak_bytes=strike.peak_bytes,
            cpu_s=strike.cpu_s,
            stop_s=strike.stop_s,
            notes=strike.findings.notes,
        )
        for attack, strike in zip(attacks, strikes, strict=True)
    ]


class _Window(NamedTuple):
    """A time, by the monotonic clock."""

    began_s: float
    ended_s: float

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s

    def phase(self, samples: Sequence[Sample]) -> Phase:
        """The honest requests that were due in it."""
        return Phase([each for each in samples if self.began_s <= each.due_s < self.ended_s])


@dataclass(frozen=True)
class _Strike:
    """What is known after an attack was done once; see :class:`Outcome`."""

    findings: Findings
    window: _Window
    died: str
    peak_bytes: int
    cpu_s: float | None
    stop_s: float | None = None


async def _strike(attack: Attack, arena: Arena, honest_share: float) -> _Strike:
    if _death(arena.target):
        return _Strike(Findings(), _Window(0, 0), "not run: the service had ended before", 0, None)
    cpu = await _cpu_of_worst(attack, arena, honest_share)
    began = time.monotonic()
    try:
        findings = await asyncio.wait_for(attack.strike(arena), _STRIKE_S)
    except TimeoutError:
        findings = Findings(faults=[f"the attack was not over after {_STRIKE_S} s"])
    window = _Window(began, time.monotonic())
    return _Strike(findings, window, _death(arena.target), arena.target.memory.peak_bytes, cpu)


@contextmanager
def _honest_client(arena: Arena, key: str) -> Iterator[Honest]:
    to, headers = arena.target, {"Content-Type": "image/png", **({"X-API-Key": key} if key else {})}
    requests = (
        (HEALTH, request(to, "GET", "/health"), 10.0),
        (SMALL, request(to, "POST", "/score", image(28), headers), 10.0),
        (LARGE, request(to, "POST", "/score", image(640), headers), 1.0),
    )
    files = []
    for kind, content, rate in requests:
        file = arena.folder / f"{kind}.request"
        file.write_bytes(content)
        files.append((kind, file, rate))
    honest = Honest(to.host, to.port, files)
    try:
        yield honest
    finally:
        honest.kill()


async def _cpu_of_worst(attack: Attack, arena: Arena, honest_share: float) -> float | None:
    """Processor seconds of one request, until the service is as idle as before it, or for a limited time."""
    if attack.worst is None:
        return None
    running, patience = arena.target, arena.pick(20.0, 8.0)
    began, before = time.monotonic(), running.cpu_seconds()
    await running.ask(post(running, "/score", attack.worst(), "image/png"), patience)
    while time.monotonic() - began < patience:
        recently = running.cpu_seconds()
        await asyncio.sleep(0.5)
        if running.cpu_seconds() - recently < 0.5 * (honest_share + _QUIET_SHARE):
            break
    return max(0.0, running.cpu_seconds() - before - honest_share * (time.monotonic() - began))


async def _stop_during(attack: Attack, arena: Arena) -> float:
    again = asyncio.create_task(attack.strike(arena))
    await asyncio.sleep(_LEAD_S)
    seconds = await arena.target.seconds_to_exit(STOP_S + 4)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    return seconds


def _death(running: Target) -> str:
    if running.memory.killed:
        return f"killed at the memory limit: {', '.join(running.memory.killed)}"
    return f"ended: {last_line(running.log)}" if running.has_ended() else ""


def _not_started(attack: Attack, reason: str) -> Outcome:
    if attack.may_be_refused and f"error: {attack.may_be_refused}" in reason:
        return replace(_not_run(attack, ""), notes=[reason])
    return _not_run(attack, reason)


def _not_run(attack: Attack, why: str) -> Outcome:
    return Outcome(attack.name, [], why, _NOTHING, _NOTHING, 0)
