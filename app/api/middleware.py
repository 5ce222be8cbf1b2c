"""Pure ASGI middleware: identify and account for every request; ask for a key."""

import hmac
import re
import time
import uuid
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.draining import Draining
from app.api.errors import Unauthorized
from app.api.metrics import Metrics

REQUEST_ID_HEADER: Final = "X-Request-ID"
_GOOD_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")
_UNROUTED: Final = "unmatched"
_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}

_log = structlog.get_logger("access")


class Accounting:
    """Gives each request an id (the client's ``X-Request-ID`` if it is a decent one), a log line, its metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics, draining: Draining) -> None:
        self.app = app
        self.metrics = metrics
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and accounts for it when it ends, however it ends."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = sent if _GOOD_REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        header = (REQUEST_ID_HEADER.lower().encode(), request_id.encode())
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
                if self.draining.begun:  # its client shall connect elsewhere
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self._account(scope, status, time.perf_counter() - began)

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNROUTED)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.count_request(method, route, status, seconds)
        state = scope["state"]
        _log.info(
            "request",
            request_id=state["request_id"],
            method=method,
            path=scope["raw_path"].decode("ascii", "backslashreplace"),
            status=status,
            ms=round(seconds * 1e3, 2),
            **state.get("log", {}),
        )


class RequireKey:
    """Closes everything but health to requests without a configured key.

    Keys are compared in constant time, each with each, and appear in no log and no answer.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers 401."""
        if scope["type"] != "http" or self._is_open(scope["path"]) or self._has_key(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        error = Unauthorized("send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
        await problems.refusal(scope["state"]["request_id"], error)(scope, receive, send)

    @staticmethod
    def _is_open(path: str) -> bool:
        return path == "/health" or path.startswith("/health/")

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        offers = [token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
        # Starlette reads header bytes as Latin-1: this gives back what was sent.
        matches = [hmac.compare_digest(offer.encode("latin-1"), key) for offer in offers for key in self._keys]
        return any(matches)
