"""Attacks with connections alone, which need no key and no image."""

import asyncio
from typing import Final

from benchmarks.attack.attack import Arena, Attack, Findings
from benchmarks.attack.wire import drip_head, get, send_unread
from benchmarks.reliability import ROOT

_LARGE_ANSWER: Final = "/static/vendor/swagger-ui/swagger-ui-bundle.js"


async def _pipeline(arena: Arena) -> Findings:
    """45 connections × 14,000 requests of 27 bytes, whose answers are never read."""
    data = get(arena.target, "/") * arena.pick(14_000, 3_000)
    seconds = arena.pick(15, 2)
    await asyncio.gather(*(send_unread(arena.target, data, seconds) for _ in range(arena.pick(45, 20))))
    return Findings()


async def _read_slowly(arena: Arena) -> Findings:
    """Connections that ask for a large answer and never read it."""
    data = get(arena.target, _LARGE_ANSWER) * 20
    size = (ROOT / "app/api" / _LARGE_ANSWER[1:]).stat().st_size
    connections, seconds = arena.pick(400, 60), arena.pick(15, 2)
    await asyncio.gather(*(send_unread(arena.target, data, seconds) for _ in range(connections)))
    return Findings(notes=[f"{connections} connections, {size / 1e6:.1f} MB per answer, 20 answers each"])


async def _send_heads_slowly(arena: Arena) -> Findings:
    """Connections that send a request head forever."""
    await asyncio.gather(*(drip_head(arena.target, arena.pick(15, 2)) for _ in range(arena.pick(500, 100))))
    return Findings()


ATTACKS: Final = (
    Attack("pipelining", _pipeline),
    Attack("slow-readers", _read_slowly),
    Attack("slow-heads", _send_heads_slowly),
)
