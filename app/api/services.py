"""The services of a running application, which routes receive as a parameter."""

import time
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias, cast

from fastapi import Depends, Request

from app.api.feedback import Feedback
from app.api.http.body.reading import BodyReader
from app.api.http.shutdown import Draining
from app.api.settings import Settings
from app.api.telemetry.drift_monitor import DriftMonitor
from app.api.telemetry.metrics import Metrics
from app.api.telemetry.request_log import RequestLog
from app.inference.decoding_processes.pool import DecodePool
from app.inference.serving.engine import Engine
from app.inference.serving.registry import ModelRegistry
from app.inference.serving.trials import Trials


@dataclass(frozen=True)
class Services:
    """The objects that all routes share."""

    settings: Settings
    engine: Engine
    decoders: DecodePool
    registry: ModelRegistry
    trials: Trials
    metrics: Metrics
    request_log: RequestLog
    body_reader: BodyReader
    label_reader: BodyReader
    drift: DriftMonitor
    feedback: Feedback | None = None
    draining: Draining = field(default_factory=Draining)
    started: float = field(default_factory=time.monotonic)


async def _services_of(request: Request) -> Services:
    return cast(Services, request.app.state.services)


RequestServices: TypeAlias = Annotated[Services, Depends(_services_of)]
"""Type of a route parameter that receives the services of the application."""
