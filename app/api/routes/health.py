"""GET /health, /health/live and /health/ready: for operators, liveness probes and load balancers."""

import time
from typing import Any, Literal

from fastapi import APIRouter, Response

from app.api import problems
from app.api.openapi import document as openapi
from app.api.openapi import examples
from app.api.schemas.health import Health, Liveness, Readiness
from app.api.schemas.model_cards import RefusedModel
from app.api.schemas.scoring import ModelVersion
from app.api.scoring import why_unavailable
from app.api.services import RequestServices, Services

router = APIRouter(prefix="/health", tags=["health"])

_UNAVAILABLE = 503
_MAX_REFUSED = 50


def _state(services: Services) -> tuple[Literal["ok", "starting", "draining", "unavailable"], str | None]:
    """Whether the default model can score, and if not, why."""
    registry = services.registry
    if services.draining.begun:
        return "draining", "the service is shutting down"
    if (reason := why_unavailable(services)) is None:
        return "ok", None
    return "starting" if registry.starting else "unavailable", reason


def _set_status(response: Response, ok: bool) -> None:
    response.headers["Cache-Control"] = "no-store"
    if not ok:
        response.status_code = _UNAVAILABLE
        response.headers.update(problems.RETRY)


def _responses(model: type[Any], good: Any, bad: Any) -> openapi.Responses:
    return {
        200: openapi.example_response("The default model can score", good),
        _UNAVAILABLE: {"model": model, **openapi.example_response("The default model cannot score; see `reason`", bad)},
    }


@router.get("", summary="Service health", response_model_exclude_none=True,
            responses=_responses(Health, examples.HEALTH, examples.UNHEALTHY))  # fmt: skip
async def health(response: Response, services: RequestServices) -> Health:
    """Default model, loaded models and refused versions. 503 while the default model cannot score."""
    status, reason = _state(services)
    _set_status(response, status == "ok")
    default = services.registry.default_served()
    versions = {
        served.bundle.manifest.name: ModelVersion(
            name=served.bundle.manifest.name, version=served.bundle.manifest.version
        )
        for served in services.registry.served
    }
    return Health(
        status=status,
        reason=reason,
        model=default and versions[services.registry.default],
        models=list(versions.values()),
        refused=[
            RefusedModel(name=each.model, reason=each.reason) for each in services.registry.refused[:_MAX_REFUSED]
        ],
        uptime_s=round(time.monotonic() - services.started, 3),
    )


@router.get("/live", summary="Liveness check",
            responses={200: openapi.example_response("The process is running", examples.LIVE)})  # fmt: skip
async def live() -> Liveness:
    """200 while the process is running. Restart the process if this fails."""
    return Liveness()


@router.get("/ready", summary="Readiness check", response_model_exclude_none=True,
            responses=_responses(Readiness, examples.READY, examples.NOT_READY))  # fmt: skip
async def ready(response: Response, services: RequestServices) -> Readiness:
    """200 if the default model can score, else 503. Send traffic only while this is 200."""
    status, reason = _state(services)
    _set_status(response, status == "ok")
    return Readiness(status="ready" if status == "ok" else status, reason=reason)
