"""Who sends a request, for fair shares: the API key if there are keys, else the address."""

import ipaddress
from functools import lru_cache
from typing import Final

from starlette.types import Scope

_HOST_BITS: Final = 64  # of an IPv6 address: every host can choose them


def client_of(scope: Scope) -> str:
    """The client of a request by its address; all clients of a proxy or a Unix socket are one."""
    address = scope.get("client")
    return network_of(address[0]) if address else ""


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """The address, or the network that a client may change it in: IPv6 hosts have 2⁶⁴ addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:  # noqa: PLR2004
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed) >> _HOST_BITS << _HOST_BITS, _HOST_BITS)))
