"""ASGI middleware: request ids and the request log, API keys, dispatch."""

import hmac
import os
import re
import time
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.errors import Unauthorized
from app.api.http.shutdown import Draining
from app.api.request_state import open_request_state
from app.api.telemetry.request_log import RequestLog

REQUEST_ID_HEADER: Final = "X-Request-ID"
_REQUEST_ID: Final = REQUEST_ID_HEADER.lower().encode()
_GOOD_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}")


class RequestTracking:
    """Gives each request an id (the client's ``X-Request-ID`` if it is valid) and adds it to the request log."""

    def __init__(self, app: ASGIApp, request_log: RequestLog, draining: Draining) -> None:
        self.app = app
        self.request_log = request_log
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and logs it when it ends, with or without an exception."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        sent = next((value for name, value in scope["headers"] if name == _REQUEST_ID), b"")
        request_id = sent.decode() if _GOOD_REQUEST_ID.fullmatch(sent) else os.urandom(16).hex()
        open_request_state(scope, request_id)
        header = (_REQUEST_ID, request_id.encode())
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
                if self.draining.begun:  # the client should connect to another instance
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self.request_log.add(scope, status, time.perf_counter() - began)


class RequireKey:
    """Refuses requests without a configured key, except health checks.

    All keys are compared, in constant time, and never appear in a log or an answer.
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
        await problems.response_for(Request(scope), error)(scope, receive, send)

    @staticmethod
    def _is_open(path: str) -> bool:
        return path == "/health" or path.startswith(("/health/", "/v2/health/"))

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        offers = [token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
        # Starlette decodes headers as Latin-1; this restores the bytes that were sent.
        matches = [hmac.compare_digest(offer.encode("latin-1"), key) for offer in offers for key in self._keys]
        return any(matches)


class Dispatch:
    """Routes ``/score``, with thousands of requests per second, past the middleware and routing of the other routes."""

    def __init__(self, path: str, endpoint: ASGIApp, others: ASGIApp) -> None:
        self._path = path
        self._endpoint = endpoint
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        scoring = scope["type"] == "http" and scope["path"] == self._path
        await (self._endpoint if scoring else self._others)(scope, receive, send)
