"""The ``Host`` of a request (RFC 9110, section 7.2): one per request, and among those that are served here.

A page of another site can let its own name resolve to this machine (DNS rebinding). The browser then takes this service
for a part of that site, and the page reads its answers. The request still names the site in ``Host``.
"""

import ipaddress
import re
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import problems
from app.api.errors import InvalidHost, MisdirectedRequest
from app.api.http.listening import is_loopback
from app.api.settings import ANY_HOST

_HOST: Final = b"host"
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::\d*)?")
_LOOPBACK_NAME: Final = re.compile(r"(.*\.)?localhost\.?")


class RequireHost:
    """Refuses requests without a valid ``Host``, with several, or with one that is not served here.

    Args:
        app: answers the other requests.
        bound: the address or name that the service listens on.
        allowed: names and addresses without a port; ``*``: all. Empty: names of this machine only if the service
            listens on a loopback address, else all.
    """

    def __init__(self, app: ASGIApp, bound: str, allowed: Sequence[str]) -> None:
        self.app = app
        self._allowed = {name.lower().strip("[]") for name in allowed}
        self._loopback_only = not allowed and is_loopback(bound)
        self._any = ANY_HOST in allowed or not (allowed or self._loopback_only)
        self._is_served = lru_cache(maxsize=256)(self._find)  # most requests name the same few

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Forwards the request or responds with 400 or 421."""
        error = self._fault(scope) if scope["type"] == "http" else None
        if error is None:
            return self.app(scope, receive, send)
        return problems.response_for(Request(scope), error)(scope, receive, send)

    def _fault(self, scope: Scope) -> InvalidHost | MisdirectedRequest | None:
        hosts = [value for name, value in scope["headers"] if name == _HOST]
        if len(hosts) != 1:
            # Version 1.0 has no such header, and no browser sends that version.
            if hosts or scope["http_version"] != "1.0":
                return InvalidHost(f"send one Host header, not {len(hosts)}")
            return None
        return self._is_served(hosts[0])

    def _find(self, host: bytes) -> InvalidHost | MisdirectedRequest | None:
        authority = _AUTHORITY.fullmatch(host.decode("latin-1"))
        if authority is None:
            return InvalidHost("the Host header is not a name or an address with an optional port")
        name = authority[1].lower().strip("[]")
        if self._any or name in self._allowed or (self._loopback_only and means_this_machine(name)):
            return None
        return MisdirectedRequest(f"this service does not answer for the host {name[:100]!r}")


def means_this_machine(host: str) -> bool:
    """Whether a name or an address without a port means this machine everywhere (RFC 6761, section 6.3).

    Names are not resolved: whoever owns a name decides what it resolves to.
    """
    if _LOOPBACK_NAME.fullmatch(host.lower()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
