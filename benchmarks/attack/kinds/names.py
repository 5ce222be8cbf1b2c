"""The names that a request calls the service by: DNS rebinding, malformed ``Host`` headers, IPv6."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.attack.attack import Arena, Attack, Findings, Settings
from benchmarks.attack.wire import address_of
from benchmarks.reliability import OK

_MALFORMED: Final = 400
_REFUSED: Final = range(400, 500)


def _on_ipv6(_: Path) -> Settings:
    return {"host": "::1"}


def _own_names(arena: Arena) -> list[str]:
    port = arena.target.port
    names = ["[::1]"] if ":" in arena.target.host else ["127.0.0.1"]
    return [address_of(arena.target), *(f"{name}:{port}" for name in [*names, "localhost", "LOCALHOST"]), *names]


async def _status(arena: Arena, head: str) -> int | None:
    reply = await arena.target.ask(f"GET /models HTTP/1.1\r\n{head}\r\n".encode())
    return reply.status if reply else None


async def _call_names(arena: Arena) -> Findings:
    """Requests as a browser sends them for a page whose name was pointed at this machine, and malformed ones."""
    findings = Findings()
    for name in _own_names(arena):
        status = await _status(arena, f"Host: {name}\r\n")
        findings.require(status == OK, f"Host {name!r} was answered {status}")
    for name in (
        "evil.example",
        f"evil.example:{arena.target.port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    ):
        status = await _status(arena, f"Host: {name}\r\n")
        findings.require(status in _REFUSED, f"a foreign Host was answered {status}")
    own = address_of(arena.target)
    malformed: Mapping[str, str] = {
        "no Host": "",
        "two Hosts": f"Host: {own}\r\nHost: evil.example\r\n",
        "two equal Hosts": f"Host: {own}\r\nHost: {own}\r\n",
    }
    for what, head in malformed.items():
        status = await _status(arena, head)
        findings.require(status == _MALFORMED, f"{what} was answered {status}")
    return findings


ATTACKS: Final = (
    Attack("host-names", _call_names),
    Attack("ipv6", _call_names, _on_ipv6),
)
