"""Whether the time to refuse a wrong API key tells how much of it is right.

Over a network, a byte-by-byte comparison differs by about a nanosecond per byte, far below what can be measured here:
:func:`_time_keys` states the smallest difference that it would have seen. It finds gross leaks, such as a slow hash
that only runs for known prefixes; that the comparison itself takes constant time follows from ``hmac.compare_digest``.
"""

import math
import time
from itertools import islice
from pathlib import Path
from statistics import NormalDist, median, pstdev
from typing import Final

from benchmarks.attack.attack import Arena, Attack, Findings, Settings
from benchmarks.attack.wire import request
from benchmarks.load.clients import LostRequest

_KEY: Final = "k3y-" + "0123456789abcdef" * 4
_WRONG: Final = {"no byte right": "X" * len(_KEY), "all but the last byte right": _KEY[:-1] + "X"}
_UNAUTHORIZED: Final = 401
_QUANTILE: Final = NormalDist().inv_cdf(0.9995)  # 99.9 %, both sides
_GROSS_S: Final = 20e-6


def _with_key(_: Path) -> Settings:
    return {"api_keys": _KEY}


def _half_width(seconds: list[float]) -> float:
    """Of the 99.9 % confidence interval of a median, from the medians of 30 groups of consecutive requests."""
    size = max(1, len(seconds) // 30)
    groups = [median(islice(seconds, start, start + size)) for start in range(0, len(seconds) - size + 1, size)]
    return _QUANTILE * pstdev(groups) / math.sqrt(len(groups))


async def _time_keys(arena: Arena) -> Findings:
    """Alternates two wrong keys of equal length on one connection."""
    findings = Findings()
    seconds: dict[str, list[float]] = {name: [] for name in _WRONG}
    requests = {
        name: request(arena.target, "GET", "/models", headers={"X-API-Key": key}) for name, key in _WRONG.items()
    }
    connection = arena.target.connection()
    for _ in range(arena.pick(5_000, 300)):
        for name, data in requests.items():
            began = time.perf_counter()
            try:
                reply = await connection.send(data)
            except LostRequest:
                continue
            seconds[name].append(time.perf_counter() - began)
            findings.require(reply.status == _UNAUTHORIZED, f"a wrong key was answered {reply.status}")
    connection.close()
    first, second = seconds.values()
    difference = median(second) - median(first)
    visible = (_half_width(first) ** 2 + _half_width(second) ** 2) ** 0.5
    findings.notes.append(f"difference {difference * 1e6:+.1f} µs, {visible * 1e6:.1f} µs would be seen")
    findings.require(abs(difference) < max(visible, _GROSS_S), f"a longer prefix takes {difference * 1e6:+.1f} µs")
    return findings


ATTACKS: Final = (Attack("key-timing", _time_keys, _with_key),)
