"""What the routes share: one record on the application's state."""

import time
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from app.api.feedback import Feedback
from app.api.http.shutdown import Draining
from app.api.http.uploads import BodyReader
from app.api.settings import Settings
from app.api.telemetry.drift_monitor import Drift
from app.api.telemetry.metrics import Metrics
from app.api.telemetry.request_log import RequestLog
from app.inference.serving.engine import Engine
from app.inference.serving.registry import ModelRegistry


@dataclass(frozen=True)
class Services:
    """The parts of one running application."""

    settings: Settings
    engine: Engine
    registry: ModelRegistry
    metrics: Metrics
    ledger: RequestLog
    intake: BodyReader
    drift: Drift
    feedback: Feedback | None = None
    draining: Draining = field(default_factory=Draining)
    started: float = field(default_factory=time.monotonic)


async def services(request: Request) -> Services:
    """The services of the application that a request came to; a FastAPI dependency."""
    return cast(Services, request.app.state.services)
