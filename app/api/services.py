"""What the routes share: one record on the application's state."""

import time
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from app.api.draining import Draining
from app.api.drift import Drift
from app.api.ledger import Ledger
from app.api.metrics import Metrics
from app.api.settings import Settings
from app.api.uploads import Intake
from app.inference.engine import Engine
from app.inference.registry import ModelRegistry


@dataclass(frozen=True)
class Services:
    """The parts of one running application."""

    settings: Settings
    engine: Engine
    registry: ModelRegistry
    metrics: Metrics
    ledger: Ledger
    intake: Intake
    drift: Drift
    draining: Draining = field(default_factory=Draining)
    started: float = field(default_factory=time.monotonic)


async def services(request: Request) -> Services:
    """The services of the application that a request came to; a FastAPI dependency."""
    return cast(Services, request.app.state.services)
