"""Well-behaved and misbehaving clients, for tests and benchmarks under load.

They use asyncio streams, because a client library would hide the state of a connection.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

HOST: Final = "127.0.0.1"


class LostRequest(Exception):
    """A request was sent on an open connection, but no complete answer was received."""


@dataclass(frozen=True)
class Reply:
    """A complete answer.

    Attributes:
        kind: index of the request.
        seconds: from the first byte of the request to the last byte of the answer.
    """

    kind: int
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


@dataclass
class Tally:
    """The results of many clients.

    Attributes:
        sent: number of requests, answered or not.
        replies: complete answers.
        lost: number of requests without a complete answer.
        refused: number of requests whose connection was refused.
        seconds: from the start to the last answer.
    """

    sent: int = 0
    replies: list[Reply] = field(default_factory=list)
    lost: int = 0
    refused: int = 0
    seconds: float = 0

    def statuses(self) -> dict[int, int]:
        """Status → number of answers."""
        found = [reply.status for reply in self.replies]
        return {status: found.count(status) for status in sorted(set(found))}

    def per_second(self, status: int = 200) -> float:
        """Answers with a status per second."""
        return sum(reply.status == status for reply in self.replies) / self.seconds

    def latency(self, quantile: float, status: int = 200) -> float:
        """A quantile of the latency in seconds of answers with a status; 0 if there are no such answers."""
        return quantile_of([reply.seconds for reply in self.replies if reply.status == status], quantile)


def quantile_of(values: Sequence[float], quantile: float) -> float:
    """The quantile by rank; 0 if there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else 0.0


def post(body: bytes, *, path: str = "/score", content_type: str = "image/png") -> bytes:
    """A POST request as bytes."""
    lines = f"Host: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"POST {path} HTTP/1.1\r\n{lines}".encode() + body


def get(path: str) -> bytes:
    """A GET request as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Connection:
    """A keep-alive connection that is opened by the first request.

    Args:
        port: of the service.
        host: its address.
        source: the local address to connect from; None: any. On Linux, every address in 127.0.0.0/8 is local.
    """

    def __init__(self, port: int, host: str = HOST, source: str | None = None) -> None:
        self.port = port
        self._host = host
        self._source = source
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes, kind: int = 0) -> Reply:
        """Sends a request and reads the answer.

        Raises:
            ConnectionRefusedError: no server listens on the port.
            LostRequest: the connection was closed before the answer was complete.
        """
        if self._streams is None:
            local = None if self._source is None else (self._source, 0)
            self._streams = await asyncio.open_connection(self._host, self.port, local_addr=local)
        reader, writer = self._streams
        began = time.perf_counter()
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            raise LostRequest from error
        if headers.get("connection") == "close":
            self.close()
        return Reply(kind, int(status_line.split()[1]), headers, body, time.perf_counter() - began)

    def close(self) -> None:
        """Closes the connection if it is open."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def crowd(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    rate: float | None = None,
    until: Callable[[Reply], bool] = lambda _: False,
) -> Tally:
    """Runs many clients at the same time, each of which sends all requests in a loop.

    Args:
        port: of the service.
        requests: complete HTTP requests.
        connections: number of clients, with one connection each.
        seconds: duration; requests in progress are still answered.
        rate: requests per second of all clients together; None: each client sends as soon as it has an answer.
        until: whether a client stops after a reply.
    """
    tally, began = Tally(), time.perf_counter()

    async def client(number: int) -> None:
        connection = Connection(port)
        position = number
        while (now := time.perf_counter() - began) < seconds:
            if rate is not None:
                due = (position // connections * connections + number) / rate
                if due >= seconds:
                    break
                await asyncio.sleep(max(0.0, due - now))
            kind = position % len(requests)
            position += connections if rate is not None else 1
            tally.sent += 1
            try:
                reply = await connection.send(requests[kind], kind)
            except LostRequest:
                tally.lost += 1
            except OSError:
                tally.refused += 1
                break
            else:
                tally.replies.append(reply)
                if until(reply):
                    break
        connection.close()

    await asyncio.gather(*(client(number) for number in range(connections)))
    tally.seconds = time.perf_counter() - began
    return tally


async def probe(port: int, path: str, *, seconds: float, every: float = 0.05) -> list[float]:
    """Requests a path repeatedly; returns the latency of each answer in seconds.

    Raises:
        AssertionError: the status of an answer was not 200.
    """
    connection, latencies, until = Connection(port), [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        reply = await connection.send(get(path))
        assert reply.status == 200, reply  # noqa: PLR2004, S101
        latencies.append(reply.seconds)
        await asyncio.sleep(every)
    connection.close()
    return latencies


async def sit_idle(port: int, seconds: float) -> None:
    """Connects and sends nothing."""
    _, writer = await asyncio.open_connection(HOST, port)
    await asyncio.sleep(seconds)
    writer.close()


async def drip(port: int, request: bytes, seconds: float, every: float = 1.0) -> None:
    """Sends the head of a request, then its body byte by byte."""
    _, writer = await asyncio.open_connection(HOST, port)
    head, _, body = request.partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    until = time.perf_counter() + seconds
    for byte in body:
        if time.perf_counter() > until:
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(every)
    writer.close()


async def hang_up_early(port: int, request: bytes) -> None:
    """Disconnects in the middle of an upload."""
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(request[: len(request) // 2])
    await writer.drain()
    writer.transport.abort()


async def never_listen(port: int, request: bytes) -> None:
    """Sends a complete request and disconnects before the answer."""
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    await writer.drain()
    writer.transport.abort()


async def in_groups(clients: Sequence[Callable[[], Awaitable[None]]], size: int) -> None:
    """Runs misbehaving clients, ``size`` at the same time. The service may close their connections."""
    waiting = list(clients)

    async def run_sequentially() -> None:
        while waiting:
            client = waiting.pop()
            with contextlib.suppress(ConnectionError):
                await client()

    await asyncio.gather(*(run_sequentially() for _ in range(size)))
