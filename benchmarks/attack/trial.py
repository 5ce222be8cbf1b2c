"""Runs attacks against one service: an honest client alone, then beside each attack, then SIGTERM during the last."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.attack.attack import Arena, Attack, Findings
from benchmarks.attack.honest import LARGE, SMALL, Honest, Phase, phase
from benchmarks.attack.outcome import STOP_S, Outcome
from benchmarks.attack.target import Launch, Target, last_line, target
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
    outcomes = list[Outcome]()
    for attack in attacks:
        if _death(arena.target):
            outcomes.append(_not_run(attack, "not run: an attack before it ended the service"))
        else:
            outcomes.append(await _beside_honest_client(attack, arena, key))
    if not attacks[-1].ends_service and not _death(arena.target):
        outcomes[-1] = replace(outcomes[-1], stop_s=await _stop_during(attacks[-1], arena))
    return outcomes


async def _beside_honest_client(attack: Attack, arena: Arena, key: str) -> Outcome:
    running = arena.target
    with _honest_client(attack, arena, key) as honest:
        await asyncio.sleep(arena.pick(2, 0.5))  # its start
        began, cpu_before = time.monotonic(), running.cpu_seconds()
        await asyncio.sleep(arena.pick(5, 1))
        alone_until = time.monotonic()
        honest_share = (running.cpu_seconds() - cpu_before) / (alone_until - began)
        cpu = await _cpu_of_worst(attack, arena, honest_share)
        strike_began = time.monotonic()
        findings = await _strike(attack, arena)
        strike_ended = time.monotonic()
        samples = await asyncio.to_thread(honest.finish)
    return Outcome(
        name=attack.name,
        faults=findings.faults,
        died="" if attack.ends_service else _death(running),
        alone=phase(samples, began, alone_until),
        among=_NOTHING if attack.ends_service else phase(samples, strike_began, strike_ended),
        peak_bytes=running.memory.peak_bytes,
        cpu_s=cpu,
        notes=findings.notes,
    )


@contextmanager
def _honest_client(attack: Attack, arena: Arena, key: str) -> Iterator[Honest]:
    small, large = arena.folder / "small.png", arena.folder / "large.png"
    small.write_bytes(image(28))
    large.write_bytes(image(640))
    images = [(SMALL, small, 10.0), *([(LARGE, large, 1.0)] if attack.large_images else [])]
    honest = Honest(arena.target.host, arena.target.port, images, key)
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
    await running.ask(attack.worst(), patience)
    while time.monotonic() - began < patience:
        recently = running.cpu_seconds()
        await asyncio.sleep(0.5)
        if running.cpu_seconds() - recently < 0.5 * (honest_share + _QUIET_SHARE):
            break
    return max(0.0, running.cpu_seconds() - before - honest_share * (time.monotonic() - began))


async def _strike(attack: Attack, arena: Arena) -> Findings:
    try:
        return await asyncio.wait_for(attack.strike(arena), _STRIKE_S)
    except TimeoutError:
        return Findings(faults=[f"the attack was not over after {_STRIKE_S} s"])


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
