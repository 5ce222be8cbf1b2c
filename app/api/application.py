"""The application: settings in, ASGI app out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import torch
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from app import __version__
from app.api import logs, openapi, problems
from app.api.draining import Draining, draining_on_signals
from app.api.metrics import Metrics
from app.api.middleware import Accounting, RequireKey
from app.api.routes import health, models, observe, page
from app.api.routes.score import ScoreRoute
from app.api.services import Services
from app.api.settings import Settings
from app.inference.engine import Engine
from app.inference.registry import ModelRegistry
from app.inference.store import ModelStore

_MEASURE_S: Final = 5


def create_app(settings: Settings) -> Starlette:
    """Builds an application; models are loaded once it starts."""
    metrics, draining = Metrics(), Draining()
    engine = Engine(
        max_batch=settings.max_batch,
        queue_size=settings.queue_size,
        max_pixels=settings.max_pixels,
        observe=metrics.count_batch,
        observe_depth=metrics.queue_depth.set,
    )
    registry = ModelRegistry(
        ModelStore(settings.model_store),
        engine,
        settings.model,
        on_change=lambda: metrics.show_models(
            {(each.bundle.manifest.name, each.bundle.manifest.version) for each in registry.served},
            {refusal.model for refusal in registry.refused},
        ),
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        torch.set_num_threads(settings.torch_threads)
        chores = [asyncio.create_task(chore) for chore in (registry.watch(), _measure_for_ever(metrics))]
        try:
            with draining_on_signals(draining, settings.drain_s):
                yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            engine.close()

    services = Services(settings, engine, registry, metrics, draining)
    return Starlette(
        # The route that is asked thousands of times a second stands before FastAPI and its layers.
        routes=[ScoreRoute(services), Mount("", _api(services))],
        middleware=_middleware(services),
        exception_handlers=problems.HANDLERS,
        lifespan=lifespan,
    )


def _middleware(services: Services) -> list[Middleware]:
    middleware = [Middleware(Accounting, metrics=services.metrics, draining=services.draining)]
    if services.settings.api_keys:
        keys = [key.get_secret_value() for key in services.settings.api_keys]
        middleware.append(Middleware(RequireKey, keys=keys))
    return middleware


def _api(services: Services) -> FastAPI:
    """Every route but the one that scores, and the document of all."""
    api = FastAPI(
        title="Anomaly service",
        version=__version__,
        description="Says whether a picture is an anomaly, and shows why. Every error is a problem document, RFC 9457.",
        exception_handlers=problems.HANDLERS,
        docs_url=None,  # ours needs no other host
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.services = services
    openapi.install(api)
    for group in (health, models, observe, page):
        api.include_router(group.router)
    return api


async def _measure_for_ever(metrics: Metrics) -> None:
    while True:
        metrics.measure_process()
        await asyncio.sleep(_MEASURE_S)


def from_environment() -> Starlette:
    """What each server process runs: settings from the environment, logging configured."""
    settings = Settings()
    logs.configure(settings.log_format, settings.log_level)
    return create_app(settings)
