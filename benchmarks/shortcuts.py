"""Compares our own code for speed with the library code that it replaces, in microseconds.

    python -m benchmarks.shortcuts

Each pair runs alternately in this process; the table has medians over the rounds. docs/architecture.md says when to
remove which shortcut.
"""

import argparse
import asyncio
import base64
import io
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple
from unittest import mock

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.api.application import create_app
from app.api.http.body.uploads import _parse, _split_simple
from app.api.http.middleware import RequestTracking
from app.api.http.protocol import Protocol
from app.api.routes.score import ScoreEndpoint
from app.api.services import Services
from app.api.settings import Settings
from app.api.telemetry import logging
from app.inference.bundles import torchscript
from app.inference.bundles.store import ModelStore
from app.inference.images.codecs.plain_png import read_plain_pngs
from app.inference.images.rendering import pngs

_ROOT: Final = Path(__file__).resolve().parent.parent
_MODEL: Final = "mnist-5"
_BATCH: Final = 64
_BOUNDARY: Final = b"0123456789abcdef"
_ANSWER: Final = b"x" * 1271  # bytes of the default answer for one small image


class Shortcut(NamedTuple):
    """One comparison.

    Attributes:
        name: what is compared.
        ours_us, library_us: microseconds per image or request.
    """

    name: str
    ours_us: float
    library_us: float


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints a Markdown table; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shortcuts", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds; each runs both sides")
    parser.add_argument("--calls", type=int, default=300, help="calls per run")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.configure("console", "error")
    print("| shortcut | ours, µs | library, µs | library ÷ ours |\n|---|---|---|---|")
    for each in measure(options.rounds, options.calls):
        print(f"| {each.name} | {each.ours_us:.1f} | {each.library_us:.1f} | {each.library_us / each.ours_us:.2f} |")
    return 0


def measure(rounds: int, calls: int) -> list[Shortcut]:
    """All shortcuts, with the shipped model and its golden image."""
    store = ModelStore(_ROOT / "model_store")
    bundle = store.load(_MODEL, store.current(_MODEL))
    image = base64.b64decode(bundle.manifest.golden.image)
    archive = store.file(bundle.manifest, "model.pt")
    pixels = np.asarray(Image.open(io.BytesIO(image)))
    form = _form(image)
    packed = torchscript.load(archive)
    with mock.patch.object(torchscript, "_pack_weights", return_value=False):
        plain = torchscript.load(archive)
    single, batch = torch.rand(1, *bundle.spec.shape), torch.rand(_BATCH, *bundle.spec.shape)

    def compare(name: str, ours: Callable[[], object], library: Callable[[], object], images: int = 1) -> Shortcut:
        seconds = [(_time(ours, calls // images + 1), _time(library, calls // images + 1)) for _ in range(rounds)]
        scale = 1e6 / images
        return Shortcut(name, scale * median(s[0] for s in seconds), scale * median(s[1] for s in seconds))

    def infer(model: torchscript.ScoringModel, images: torch.Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                return model(images)

        return run

    return [
        compare(
            f"PNG reader, {_BATCH} files at a time",
            lambda: read_plain_pngs([image] * _BATCH, max_pixels=10**6),
            lambda: [_pillow_read(image) for _ in range(_BATCH)],
            _BATCH,
        ),
        compare(
            "PNG reader, one file", lambda: read_plain_pngs([image], max_pixels=10**6), lambda: _pillow_read(image)
        ),
        compare("PNG writer", lambda: pngs(pixels[None]), lambda: _pillow_write(pixels)),
        compare(
            "multipart fast path", lambda: _split_simple(form, _BOUNDARY, 100), lambda: _parse(form, _BOUNDARY, 100)
        ),
        compare(f"packed weights, batch of {_BATCH}", infer(packed, batch), infer(plain, batch), _BATCH),
        compare("packed weights, one image", infer(packed, single), infer(plain, single)),
        *asyncio.run(_measure_http(rounds, calls, image)),
    ]


def _time(work: Callable[[], object], calls: int) -> float:
    """Seconds per call."""
    work()
    began = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - began) / calls


async def _measure_http(rounds: int, calls: int, image: bytes) -> list[Shortcut]:
    settings = Settings(model_store=_ROOT / "model_store", model=_MODEL, log_level="error")
    app = create_app(settings)
    api = _fastapi_of(app)
    async with api.router.lifespan_context(api):
        await api.state.services.registry.load_default()
        ordinary = _with_fastapi_route(api.state.services)
        direct, routed = await _alternate(
            rounds, lambda: _call(app, image, calls), lambda: _call(ordinary, image, calls)
        )
    ours, library = await _alternate(
        rounds, lambda: _over_http(Protocol, calls), lambda: _over_http(HttpToolsProtocol, calls)
    )
    return [
        Shortcut("/score outside FastAPI, a request", direct, routed),
        Shortcut("head and body in one write (protocol subclass), a request", ours, library),
    ]


async def _alternate(
    rounds: int, ours: Callable[[], Awaitable[float]], library: Callable[[], Awaitable[float]]
) -> tuple[float, float]:
    """Runs both sides alternately; returns their medians in microseconds."""
    seconds = [(await ours(), await library()) for _ in range(rounds)]
    return 1e6 * median(s[0] for s in seconds), 1e6 * median(s[1] for s in seconds)


def _fastapi_of(app: Any) -> FastAPI:
    while not isinstance(app, FastAPI):
        app = getattr(app, "_others", None) or app.app
    return app


def _with_fastapi_route(services: Services) -> ASGIApp:
    """The same endpoint as an ordinary FastAPI route, with the same middleware."""
    api, endpoint = FastAPI(), ScoreEndpoint(services)

    @api.post(endpoint.path)
    async def score(request: Request) -> Response:
        sent: list[Message] = []

        async def collect(message: Message) -> None:
            sent.append(message)

        await endpoint(dict(request.scope), request.receive, collect)
        return Response(sent[1]["body"], sent[0]["status"], media_type="application/json")

    return RequestTracking(api, services.request_log, services.engine.memory, services.draining)


async def _call(app: ASGIApp, image: bytes, calls: int) -> float:
    """Seconds per in-process request."""

    async def receive() -> Message:
        return {"type": "http.request", "body": image, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:  # noqa: PLR2004
            raise RuntimeError(f"status {message['status']}")

    began = time.perf_counter()
    for _ in range(calls):
        scope: Scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/score", "raw_path": b"/score",
            "query_string": b"", "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("a", 1),
            "headers": [
                (b"host", b"localhost"), (b"content-type", b"image/png"), (b"content-length", b"%d" % len(image))
            ],
            "state": {},
        }  # fmt: skip
        await app(scope, receive, send)
    return (time.perf_counter() - began) / calls


async def _over_http(protocol: type[HttpToolsProtocol], calls: int) -> float:
    """Seconds per request over one keep-alive connection on loopback, to an application that answers a constant."""
    config = uvicorn.Config(_constant, http=protocol, log_config=None, access_log=False, lifespan="off")
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    request = b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 500\r\n\r\n" + bytes(500)
    began = time.perf_counter()
    for _ in range(calls):
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(_ANSWER))
    seconds = (time.perf_counter() - began) / calls
    writer.close()
    server.close()
    return seconds


async def _constant(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"%d" % len(_ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


def _form(image: bytes) -> bytes:
    head = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return head % _BOUNDARY + image + b"\r\n--%b--\r\n" % _BOUNDARY


def _pillow_read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]))


def _pillow_write(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
