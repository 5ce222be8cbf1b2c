"""Sockets of attackers, below any HTTP client."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.attack.target import Target

_SMALL_BUFFER: Final = 4096


def address_of(target: Target) -> str:
    """The service as it appears in a ``Host`` header."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{host}:{target.port}"


def request(
    target: Target, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole request as bytes, with the right ``Host``."""
    fields = {"Host": address_of(target), **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def get(target: Target, path: str) -> bytes:
    """A GET request as bytes."""
    return request(target, "GET", path)


def post(target: Target, path: str, body: bytes, content_type: str) -> bytes:
    """A POST request as bytes."""
    return request(target, "POST", path, body, {"Content-Type": content_type})


def post_json(target: Target, path: str, value: Any) -> bytes:
    """A POST request with a JSON body, as bytes."""
    return post(target, path, json.dumps(value).encode(), "application/json")


async def send_unread(target: Target, data: bytes, seconds: float) -> None:
    """Sends data on a connection that is never read, and keeps it open; the service may close it."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    with socket.socket(family) as connection, contextlib.suppress(OSError, TimeoutError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        connection.setblocking(False)
        async with asyncio.timeout(seconds):
            await loop.sock_connect(connection, (target.host, target.port))
            await loop.sock_sendall(connection, data)
            await asyncio.sleep(seconds)


async def drip_head(target: Target, seconds: float, every: float = 1) -> None:
    """Sends a request head a few bytes at a time, without an end; the service may close the connection."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(target.host, target.port)
            try:
                writer.write(f"GET /health HTTP/1.1\r\nHost: {address_of(target)}\r\n".encode())
                while True:
                    writer.write(b"X-A: a\r\n")
                    await writer.drain()
                    await asyncio.sleep(every)
            finally:
                writer.close()
