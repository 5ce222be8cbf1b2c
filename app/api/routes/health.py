"""GET /health, /health/live, /health/ready: for people, restarters and balancers."""

import time
from typing import Any, Literal

from fastapi import APIRouter, Response

from app.api.openapi import document as openapi
from app.api.openapi import examples
from app.api.schemas import Health, Liveness, ModelVersion, Readiness, RefusedModel
from app.api.services import RequestServices, Services

router = APIRouter(prefix="/health", tags=["health"])

_UNAVAILABLE = 503
_RETRY = {"Retry-After": "1"}
_SHOWN = 50


def _state(services: Services) -> tuple[Literal["ok", "starting", "draining", "unavailable"], str | None]:
    """Whether the default model can score, and if not, why."""
    registry = services.registry
    if services.draining.begun:
        return "draining", "the service is shutting down"
    if registry.default_served() is not None:
        return "ok", None
    return "starting" if registry.starting else "unavailable", registry.why_unavailable(registry.default)


def _mark(response: Response, ok: bool) -> None:
    response.headers["Cache-Control"] = "no-store"
    if not ok:
        response.status_code = _UNAVAILABLE
        response.headers.update(_RETRY)


def _answers(model: type[Any], good: Any, bad: Any) -> openapi.Responses:
    return {
        200: openapi.answer("Able to score", good),
        _UNAVAILABLE: {"model": model, **openapi.answer("Not able to score; `reason` says why", bad)},
    }


@router.get("", summary="How the service is", response_model_exclude_none=True,
            responses=_answers(Health, examples.HEALTH, examples.UNHEALTHY))  # fmt: skip
async def health(response: Response, services: RequestServices) -> Health:
    """The default model, the models in memory, refused versions. 503 while the default model cannot score."""
    status, reason = _state(services)
    _mark(response, status == "ok")
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
        refused=[RefusedModel(name=each.model, reason=each.reason) for each in services.registry.refused[:_SHOWN]],
        uptime_s=round(time.monotonic() - services.started, 3),
    )


@router.get("/live", summary="Whether the process runs",
            responses={200: openapi.answer("It runs", examples.LIVE)})  # fmt: skip
async def live() -> Liveness:
    """200 while the process runs: restart it when this stops answering."""
    return Liveness()


@router.get("/ready", summary="Whether images can be scored", response_model_exclude_none=True,
            responses=_answers(Readiness, examples.READY, examples.NOT_READY))  # fmt: skip
async def ready(response: Response, services: RequestServices) -> Readiness:
    """200 or 503: send traffic while this is 200."""
    status, reason = _state(services)
    _mark(response, status == "ok")
    return Readiness(status="ready" if status == "ok" else status, reason=reason)
