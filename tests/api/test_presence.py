"""A client that goes away while its picture is scored."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Message

from app.api.application import create_app
from app.api.settings import Settings
from app.inference.store import ModelStore
from benchmarks.reliability import picture
from tests.support import make_bundle

GONE, OK = 499, 200


@asynccontextmanager
async def running(store: Path) -> AsyncIterator[ASGIApp]:
    """The application over a store, started, its model loaded."""
    app = create_app(Settings(model_store=store, model="m"))
    inbox, outbox = asyncio.Queue[Message](), asyncio.Queue[Message]()
    life = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    for _ in range(500):
        if await status_of(app, "GET", "/health/ready") == OK:
            break
        await asyncio.sleep(0.02)
    yield app
    await inbox.put({"type": "lifespan.shutdown"})
    await life


async def status_of(app: ASGIApp, method: str, path: str, body: bytes = b"") -> int:
    """The answer's status to a client that goes away as soon as its request is read."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
    }
    came: list[Message] = [{"type": "http.request", "body": body}]
    sent: list[Message] = []

    async def receive() -> Message:
        return came.pop() if came else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(("size", "status"), [(256, GONE), (8, OK)])
def test_what_takes_long_is_dropped_and_what_is_tiny_is_not_worth_looking(
    tmp_path: Path, size: int, status: int
) -> None:
    ModelStore(tmp_path).publish(*make_bundle("m"))

    async def scenario() -> int:
        async with running(tmp_path) as app:
            return await status_of(app, "POST", "/score", picture(size))

    assert asyncio.run(scenario()) == status
