"""Builds the ASGI application from the settings."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import torch
from fastapi import FastAPI
from starlette.types import ASGIApp

from app import __version__
from app.api import problems
from app.api.errors import LabelTooLarge
from app.api.feedback import LABEL_BODY_BYTES, Feedback
from app.api.http.body.reading import BodyReader
from app.api.http.connections import most_connections
from app.api.http.hosts import RequireHost
from app.api.http.middleware import REQUEST_ID_HEADER, AllowOrigins, Dispatch, HeadAsGet, RequestTracking, RequireKey
from app.api.http.protocol import Protocol
from app.api.http.shutdown import draining_on_signals
from app.api.labelled_images import LabelledImages
from app.api.lookout import routes as lookout
from app.api.openapi import document
from app.api.routes import feedback, health, models, page
from app.api.routes import metrics as metrics_route
from app.api.routes.score import NUMBER_HEADERS, ScoreEndpoint
from app.api.services import Services
from app.api.settings import SHARED_METRICS, Settings
from app.api.telemetry import logging
from app.api.telemetry.drift_monitor import DriftMonitor
from app.api.telemetry.metrics import Metrics
from app.api.telemetry.request_log import RequestLog
from app.api.v2 import openapi as v2_openapi
from app.api.v2 import routes as v2
from app.api.v2.tensors import JSON_LENGTH_HEADER
from app.api.workers import ending_with_the_service
from app.inference.bundles.devices import device_named
from app.inference.bundles.store import ModelStore
from app.inference.decoding_processes.limits import most_processes
from app.inference.decoding_processes.pool import DecodePool
from app.inference.machine import available_bytes, resident_bytes, usable_cores
from app.inference.serving.engine import Engine
from app.inference.serving.memory import Memory, request_bytes
from app.inference.serving.registry import ModelRegistry
from app.inference.serving.trials import Trials

if TYPE_CHECKING:
    from app.inference.bundles.signing import TrustedKeys

_log = structlog.get_logger(__name__)

# A few requests in progress have as many objects as the default threshold of Python's garbage collector, 700. It then
# finds nothing, because finished requests leave no reference cycles.
_COLLECTION_THRESHOLD: Final = 10_000
_DECODING_SHARE: Final = 0.5  # of a request's time may pass until the images before it are decoded
_MEASURE_INTERVAL_S: Final = 2
_LOOK_INTERVAL_S: Final = 0.2
_EXPOSED_HEADERS: Final = (REQUEST_ID_HEADER, "Retry-After", JSON_LENGTH_HEADER, *NUMBER_HEADERS)


def create_app(settings: Settings) -> ASGIApp:
    """Builds the application. Models are loaded when it starts."""
    services = _services(settings)
    endpoint = ScoreEndpoint(services)
    app: ASGIApp = Dispatch(endpoint.path, endpoint, HeadAsGet(_api(services)))
    if settings.api_keys:
        app = RequireKey(app, [key.get_secret_value() for key in settings.api_keys])
    app = RequireHost(app, settings.host, settings.allowed_hosts)
    if settings.cors_origins:
        app = AllowOrigins(app, settings.cors_origins, _EXPOSED_HEADERS)
    return RequestTracking(app, services.request_log, services.engine.memory, services.draining)


def _services(settings: Settings) -> Services:
    metrics = Metrics()
    drift = DriftMonitor(metrics, settings.drift_path)
    decode_processes = most_processes(
        usable_cores() // settings.workers, (settings.max_memory or available_bytes()) // settings.workers
    )
    decoders = DecodePool(decode_processes)
    memory = Memory(settings.max_body_bytes)
    engine = Engine(
        decode_s=settings.request_timeout_s * _DECODING_SHARE,
        memory=memory,
        max_batch=settings.max_batch,
        queue_size=settings.queue_size,
        max_pixels=settings.max_pixels,
        decode_threads=decode_processes,
        decode=decoders.decode,
        observe=metrics.count_batch,
    )
    metrics.watch_queue(lambda: engine.admitted)
    trials = _trials(settings)

    def on_change() -> None:
        metrics.show_models(
            {(each.bundle.manifest.name, each.bundle.manifest.version) for each in registry.served},
            {refused.model for refused in registry.refused},
        )
        _limit_memory(memory, settings)

    registry = ModelRegistry(
        ModelStore(settings.model_store, _trusted_keys(settings), trials.require, device_named(settings.device)),
        engine,
        settings.model,
        max_loaded=settings.max_loaded_models,
        preload=settings.preload,
        load_timeout_s=settings.load_timeout_s,
        on_change=on_change,
    )
    return Services(
        settings=settings,
        engine=engine,
        decoders=decoders,
        registry=registry,
        trials=trials,
        metrics=metrics,
        request_log=RequestLog(metrics, drift.add),
        body_reader=BodyReader(settings.max_body_bytes),
        label_reader=BodyReader(_label_bytes(settings), LabelTooLarge),
        drift=drift,
        feedback=_feedback(settings),
    )


def _feedback(settings: Settings) -> Feedback | None:
    if not settings.feedback_path:
        return None
    images = None if settings.feedback_images is None else LabelledImages(settings.feedback_images)
    return Feedback(Path(settings.feedback_path), images)


def _label_bytes(settings: Settings) -> int:
    """Size of the largest label: with the image as base64, if images are stored."""
    return LABEL_BODY_BYTES + (0 if settings.feedback_images is None else settings.max_body_bytes * 4 // 3)


def _limit_memory(memory: Memory, settings: Settings) -> None:
    """Leaves to requests what libraries and models do not take. Called whenever a model was loaded."""
    available = settings.max_memory or available_bytes()
    resident = resident_bytes() - memory.requests - memory.decoding
    if not memory.set_limit(request_bytes(available // settings.workers, resident)):
        _log.warning(
            "too little memory: at times requests may take more than there is",
            available=available,
            resident=resident,
            workers=settings.workers,
        )


@asynccontextmanager
async def _running(services: Services) -> AsyncIterator[None]:
    """The application's lifespan: background tasks, draining, clean-up."""
    settings, registry, drift = services.settings, services.registry, services.drift
    torch.set_num_threads(settings.torch_threads)
    gc.set_threshold(_COLLECTION_THRESHOLD)
    Protocol.open_connections.limit = most_connections()
    drift.open()
    tasks: list[asyncio.Task[None]] = []
    try:
        await asyncio.to_thread(services.decoders.start)
        with draining_on_signals(services.draining, settings.drain_s), ending_with_the_service():
            if settings.workers > 1:  # they share the port: this one accepts connections only with a loaded model
                await _load_unless_draining(services)
            background = (registry.watch(), _measure_periodically(services.metrics), drift.write_periodically())
            tasks += [asyncio.create_task(each) for each in background]
            yield
    finally:
        services.trials.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        services.decoders.close()
        services.engine.close()
        services.request_log.flush()
        drift.close()


async def _load_unless_draining(services: Services) -> None:
    """Loads the default model. A signal ends the waiting: the server acts on it only after its start."""
    loading = asyncio.create_task(services.registry.load_default())
    while not loading.done() and not services.draining.begun:
        await asyncio.wait([loading], timeout=_LOOK_INTERVAL_S)


def _trials(settings: Settings) -> Trials:
    """Tries versions in child processes; they are forked before this process has threads that use torch."""
    shared = os.environ.get(SHARED_METRICS)
    trials = Trials(
        seconds=settings.load_timeout_s,
        max_batch=settings.max_batch,
        shared=Path(shared) / "tried" if shared else None,
    )
    if not settings.trusted_keys:  # signed versions are not tried
        trials.start()
    return trials


def _api(services: Services) -> FastAPI:
    """The FastAPI application: all routes except ``/score``, and the OpenAPI document of all routes."""
    api = FastAPI(
        title="Anomaly service",
        version=__version__,
        description="Detects anomalous images. For each image it returns a score, a verdict and the model's "
        "reconstruction. Errors are problem documents (RFC 9457); under /v2 they follow the Open Inference "
        "Protocol, under /2020-11-20 Amazon Lookout for Vision.",
        lifespan=lambda _: _running(services),
        exception_handlers=problems.HANDLERS,
        docs_url=None,  # routes.page serves a docs page that needs no other host
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.services = services
    document.install(api, further_routes=v2_openapi.ROUTES.routes)
    for module in (health, feedback, models, metrics_route, page, v2, lookout):
        api.include_router(module.router)
    return api


def _trusted_keys(settings: Settings) -> "TrustedKeys | None":
    if not settings.trusted_keys:
        return None
    from app.inference.bundles.signing import TrustedKeys  # noqa: PLC0415  10 MB, only if signatures are required

    return TrustedKeys(settings.trusted_keys)


async def _measure_periodically(metrics: Metrics) -> None:
    while True:
        metrics.measure_process()
        await asyncio.sleep(_MEASURE_INTERVAL_S)


def from_environment() -> ASGIApp:
    """The application factory of a server process. Reads the settings from the environment and configures logging."""
    settings = Settings()
    logging.configure(settings.log_format, settings.log_level)
    return create_app(settings)
