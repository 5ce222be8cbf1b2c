"""ASGI middleware: request ids, memory, the request log, other origins, API keys, HEAD and dispatch to ``/score``.

Middleware that does nothing after the request returns the next application's coroutine instead of awaiting it. That
saves one coroutine per layer and request.
"""

import hashlib
import hmac
import os
import re
import time
from collections.abc import Awaitable, Sequence
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.api.errors import OriginRefused, Unauthorized
from app.api.http.clients import client_of
from app.api.http.flow import wait_until_sent
from app.api.http.shutdown import Draining
from app.api.request_state import open_request_state, request_state
from app.api.telemetry.request_log import RequestLog
from app.inference.serving.memory import Memory

REQUEST_ID_HEADER: Final = "X-Request-ID"
_REQUEST_ID: Final = REQUEST_ID_HEADER.lower().encode()
_VALID_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}")


_AWS_CREDENTIAL: Final = re.compile(r"(?:^|[ ,])Credential=([^,]+?)/\d{8}/[^/,]*/[^/,]*/aws4_request(?:,|$)")


class RequestTracking:
    """Assigns each request an id (the client's ``X-Request-ID`` if valid, else a random one) and logs the request.

    The memory that a request takes is given back when its answer is sent.
    """

    def __init__(self, app: ASGIApp, request_log: RequestLog, memory: Memory, draining: Draining) -> None:
        self.app = app
        self.request_log = request_log
        self.memory = memory
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards the request and logs it when it ends, also after an exception."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == _REQUEST_ID), b"")
        request_id = given.decode() if _VALID_REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        claim = self.memory.claim(client_of(scope))
        open_request_state(scope, request_id, claim)
        header = (_REQUEST_ID, request_id.encode())
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
                if self.draining.begun:  # so that the client connects to another instance
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self.request_log.add(scope, status, time.perf_counter() - began)
            try:
                if claim.amount:
                    await wait_until_sent(scope)
            finally:
                claim.release()


class AllowOrigins(CORSMiddleware):
    """Lets pages of other origins read the responses (CORS), errors included. Preflight requests need no key.

    Args:
        app: answers the other requests.
        origins: such as ``https://example.com``; ``*`` allows every origin.
        exposed: names of the response headers that the pages may read.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], exposed: Sequence[str]) -> None:
        # Any header is allowed: keys and types of content, but also those that tracing adds.
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            expose_headers=exposed,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a preflight request, or forwards the request and adds headers to its response."""
        try:
            await super().__call__(scope, receive, send)
        except OriginRefused as error:
            await problems.response_for(Request(scope), error)(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight request.

        Raises:
            OriginRefused: origin, method or headers are not allowed.
        """
        response = super().preflight_response(request_headers)
        if response.status_code != HTTPStatus.OK:
            raise OriginRefused(bytes(response.body).decode())
        return response


class RequireKey:
    """Refuses requests without a valid API key, except health checks and the pages, which ask for the key.

    The digests of a request's keys are compared with those of all keys, so that the time tells neither which key a
    request resembles nor how long the keys are. Keys appear neither in the log nor in responses.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self._salt = os.urandom(16)
        self._digests = [self._digest(key.encode()) for key in keys]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Forwards the request or responds with 401."""
        if scope["type"] != "http" or self._is_public(scope["path"]):
            return self.app(scope, receive, send)
        if (number := self._key_of(Headers(scope=scope))) is not None:
            request_state(scope).claim.client = f"key {number}"
            return self.app(scope, receive, send)
        error = Unauthorized("send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
        return problems.response_for(Request(scope), error)(scope, receive, send)

    @staticmethod
    def _is_public(path: str) -> bool:
        return path in {"/", "/docs", "/health"} or path.startswith(("/health/", "/v2/health/", "/static/"))

    def _key_of(self, headers: Headers) -> int | None:
        """The number of the key that the request has."""
        sent = [_authorization(headers.get("authorization", "")), headers.get("x-api-key", "")]
        # Starlette decodes headers as Latin-1; this restores the bytes that were sent.
        digests = [self._digest(each.encode("latin-1")) for each in sent]
        matches = [
            number for digest in digests for number, key in enumerate(self._digests) if hmac.compare_digest(digest, key)
        ]
        return matches[0] if matches else None

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._salt, digest_size=32).digest()


def _authorization(value: str) -> str:
    """The key in an Authorization header: a bearer token, or the access key id of an AWS signature.

    The signature itself cannot be verified without a secret that both sides know, so the id is the key.
    """
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    signed = _AWS_CREDENTIAL.search(rest) if scheme == "AWS4-HMAC-SHA256" else None
    return signed[1] if signed else ""


class HeadAsGet:
    """Answers HEAD wherever GET is: with the headers of the response to GET, and no body (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forwards the request, HEAD as GET."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        get = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        try:
            await self.app(get, receive, send_head)
        finally:
            scope["route"] = get.get("route")  # for log and metrics


class Dispatch:
    """Sends ``/score`` straight to its endpoint: FastAPI's routing is slow at thousands of requests per second."""

    def __init__(self, path: str, endpoint: ASGIApp, others: ASGIApp) -> None:
        self._path = path
        self._endpoint = endpoint
        self._others = others

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Forwards the request to the endpoint or to the other routes."""
        scoring = scope["type"] == "http" and scope["path"] == self._path
        return (self._endpoint if scoring else self._others)(scope, receive, send)
