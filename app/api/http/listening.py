"""The address that the service listens on."""

import errno
import ipaddress
import socket
from contextlib import suppress
from typing import Any

from app.api.settings import PREFIX, BadSettings

_LAST_PORT = 65_535


def require_free(host: str, port: int) -> None:
    """Checks an address before the server starts, whose own error names no remedy. It is not reserved.

    Raises:
        BadSettings: the port is in use, or the process may not or cannot listen there.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadSettings(f"{PREFIX}HOST: {host!r} is not an address: {getattr(error, 'strerror', error)}") from error
    for family, kind, protocol, _, address in addresses:
        try:
            _bind(family, kind, protocol, address)
        except OSError as error:
            # A name can have an address of a kind that is switched off, which the server leaves out.
            if error.errno != errno.EADDRNOTAVAIL or len(addresses) == 1:
                raise BadSettings(_reason(host, port, error)) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address, or all addresses of a name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def _bind(family: int, kind: int, protocol: int, address: Any) -> None:
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind(address)


def _reason(host: str, port: int, error: OSError) -> str:
    if error.errno != errno.EADDRINUSE:
        name = "PORT" if error.errno == errno.EACCES else "HOST"
        return f"{PREFIX}{name}: the service cannot listen on port {port} of {host}: {error.strerror}"
    other = port % _LAST_PORT + 1
    return (
        f"{PREFIX}PORT: port {port} of {host} is in use; stop the program that uses it, or choose another port: "
        f"PORT={other} make serve, --port {other} or {PREFIX}PORT={other}"
    )
