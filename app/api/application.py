"""The application: settings in, ASGI app out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from fastapi import FastAPI
from starlette.types import ASGIApp, Lifespan

from app import __version__
from app.api import problems
from app.api.feedback import Feedback
from app.api.http.middleware import Dispatch, RequestTracking, RequireKey
from app.api.http.shutdown import Draining, draining_on_signals
from app.api.http.uploads import BodyReader
from app.api.openapi import document as openapi
from app.api.routes import feedback, health, models, page
from app.api.routes import metrics as observe
from app.api.routes.score import ScoreEndpoint
from app.api.services import Services
from app.api.settings import Settings
from app.api.telemetry import logging as logs
from app.api.telemetry.drift_monitor import Drift
from app.api.telemetry.metrics import Metrics
from app.api.telemetry.request_log import RequestLog
from app.api.v2 import routes as v2
from app.inference.bundles.store import ModelStore
from app.inference.serving.engine import Engine
from app.inference.serving.registry import ModelRegistry

if TYPE_CHECKING:
    from app.inference.bundles.signing import TrustedKeys

_MEASURE_S: Final = 2


def create_app(settings: Settings) -> ASGIApp:
    """Builds an application; models are loaded once it starts."""
    metrics, draining = Metrics(), Draining()
    drift = Drift(metrics, settings.drift_path)
    ledger = RequestLog(metrics, drift.note)
    engine = Engine(
        max_batch=settings.max_batch,
        queue_size=settings.queue_size,
        max_pixels=settings.max_pixels,
        observe=metrics.count_batch,
    )
    metrics.watch_queue(lambda: engine.admitted)
    registry = ModelRegistry(
        ModelStore(settings.model_store, _trusted(settings)),
        engine,
        settings.model,
        max_loaded=settings.max_loaded_models,
        preload=settings.preload,
        on_change=lambda: metrics.show_models(
            {(each.bundle.manifest.name, each.bundle.manifest.version) for each in registry.served},
            {refusal.model for refusal in registry.refused},
        ),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        torch.set_num_threads(settings.torch_threads)
        drift.open()
        if settings.workers > 1:  # the address is shared: what this process cannot answer yet, another one can
            await registry.load_default()
        chores = [asyncio.create_task(chore) for chore in (registry.watch(), _measure_for_ever(metrics), drift.keep())]
        try:
            with draining_on_signals(draining, settings.drain_s):
                yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            engine.close()
            ledger.tell()
            drift.close()

    intake = BodyReader(max_body_bytes=settings.max_body_bytes, max_files=settings.max_files)
    services = Services(settings, engine, registry, metrics, ledger, intake, drift, _feedback(settings), draining)
    endpoint = ScoreEndpoint(services)
    app: ASGIApp = Dispatch(endpoint.path, endpoint, _api(services, lifespan))
    if settings.api_keys:
        app = RequireKey(app, [key.get_secret_value() for key in settings.api_keys])
    return RequestTracking(app, ledger, draining)


def _api(services: Services, lifespan: Lifespan[FastAPI]) -> FastAPI:
    """Every route but the one that scores, and the document of all."""
    api = FastAPI(
        title="Anomaly service",
        version=__version__,
        description="Says whether an image is an anomaly, and shows why. Every error is a problem document, RFC 9457; "
        "under /v2 it is what the Open Inference Protocol says.",
        lifespan=lifespan,
        exception_handlers=problems.HANDLERS,
        docs_url=None,  # ours needs no other host
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.services = services
    openapi.install(api)
    for group in (health, feedback, models, observe, page, v2):
        api.include_router(group.router)
    return api


def _trusted(settings: Settings) -> "TrustedKeys | None":
    if not settings.trusted_keys:
        return None
    from app.inference.bundles.signing import TrustedKeys  # noqa: PLC0415  10 MB that only signatures cost

    return TrustedKeys(settings.trusted_keys)


def _feedback(settings: Settings) -> Feedback | None:
    return Feedback(Path(settings.feedback_path)) if settings.feedback_path else None


async def _measure_for_ever(metrics: Metrics) -> None:
    while True:
        metrics.measure_process()
        await asyncio.sleep(_MEASURE_S)


def from_environment() -> ASGIApp:
    """What each server process runs: settings from the environment, logging configured."""
    settings = Settings()
    logs.configure(settings.log_format, settings.log_level)
    return create_app(settings)
