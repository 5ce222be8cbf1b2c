"""Labels that are answered with 201 are in the file, whatever happens to the disk or at the same time."""

import asyncio
import json
import resource
from pathlib import Path
from typing import Final

from benchmarks.attack.attack import Arena, Attack, Findings, Settings
from benchmarks.attack.wire import post, post_json
from benchmarks.reliability import OK, image

_CREATED: Final = 201
_CUT_AFTER: Final = 100  # bytes, less than a label


def _with_labels(folder: Path) -> Settings:
    return {"feedback_path": folder / "labels.jsonl"}


def with_labels_and_workers(folder: Path) -> Settings:
    """Two workers that share a label file."""
    return {**_with_labels(folder), "workers": 2}


async def _answer_id(arena: Arena) -> str:
    reply = await arena.target.ask(post(arena.target, "/score?include=", image(28), "image/png"))
    if reply is None or reply.status != OK:
        return ""
    return str(json.loads(reply.body)["results"][0]["id"])


async def _label(arena: Arena, answer_id: str, comment: str) -> bool:
    """Whether a label was stored, according to the answer."""
    body = {"id": answer_id, "verdict": "normal", "comment": comment}
    reply = await arena.target.ask(post_json(arena.target, "/feedback", body))
    return reply is not None and reply.status == _CREATED


def _check(findings: Findings, file: Path, stored: list[str]) -> None:
    """Every line is JSON, and every stored label is one of them."""
    found = list[str]()
    for line in file.read_text().splitlines():
        try:
            found.append(json.loads(line)["comment"])
        except ValueError:
            findings.faults.append(f"a line of the label file is no JSON: {line[:40]}…")
    lost = set(stored) - set(found)
    findings.require(not lost, f"{len(lost)} of {len(stored)} labels that were answered 201 are not in the file")
    findings.require(len(found) == len(set(found)), "a label is in the file twice")


async def _fill_disk(arena: Arena) -> Findings:
    """The disk is full in the middle of a label, then it has room again.

    A limit on file sizes (RLIMIT_FSIZE) stands for the full disk: it cuts a write in the same way, for any user.
    """
    findings, stored = Findings(), list[str]()
    file, answer_id = arena.folder / "labels.jsonl", await _answer_id(arena)
    run = f"{file.stat().st_size}-"  # the strike may be repeated

    async def label(name: str) -> bool:
        comment = f"{run}{name}"
        done = await _label(arena, answer_id, comment)
        if done:
            stored.append(comment)
        return done

    for number in range(40):
        findings.require(await label(f"before-{number}"), "a label was not stored before the disk was full")
    pid = arena.target.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (file.stat().st_size + _CUT_AFTER, hard))
    try:
        kept = [await label(f"full-{number}") for number in range(3)]
        findings.require(not any(kept), "a label was answered 201 on a full disk")
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    for number in range(3):
        findings.require(await label(f"after-{number}"), "a label was not stored after the disk had room again")
    _check(findings, file, stored)
    return findings


async def _label_at_once(arena: Arena) -> Findings:
    """Two workers that store labels at the same time."""
    findings, stored = Findings(), list[str]()
    file, answer_id = arena.folder / "labels.jsonl", await _answer_id(arena)
    run = f"{file.stat().st_size}-"

    async def client(name: int) -> None:
        for number in range(arena.pick(100, 10)):
            comment = f"{run}{name}-{number}-{'x' * 900}"
            if await _label(arena, answer_id, comment):
                stored.append(comment)

    await asyncio.gather(*(client(name) for name in range(16)))
    findings.require(len(stored) == 16 * arena.pick(100, 10), f"only {len(stored)} labels were answered 201")
    _check(findings, file, stored)
    return findings


ATTACKS: Final = (
    Attack("labels-disk-full", _fill_disk, _with_labels),
    Attack("labels-two-workers", _label_at_once, with_labels_and_workers),
)
