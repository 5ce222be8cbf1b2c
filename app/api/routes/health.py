"""GET /health, /health/live, /health/ready: for people, restarters and balancers."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response

from app.api.schemas import Health, Liveness, ModelVersion, Readiness, RefusedModel
from app.api.services import Services, services

router = APIRouter(prefix="/health", tags=["health"])

_UNAVAILABLE = 503
_RETRY = {"Retry-After": "1"}

Parts = Annotated[Services, Depends(services)]


def _state(parts: Services) -> tuple[Literal["ok", "starting", "draining", "unavailable"], str | None]:
    """Whether the default model can score, and if not, why."""
    registry = parts.registry
    if parts.draining.begun:
        return "draining", "the service is shutting down"
    if registry.default_served() is not None:
        return "ok", None
    return "starting" if registry.starting else "unavailable", registry.why_unavailable(registry.default)


def _mark(response: Response, ok: bool) -> None:
    response.headers["Cache-Control"] = "no-store"
    if not ok:
        response.status_code = _UNAVAILABLE
        response.headers.update(_RETRY)


def _not_ok(model: type[Any]) -> dict[int | str, dict[str, Any]]:
    return {_UNAVAILABLE: {"model": model, "description": "Not able to score; `reason` says why"}}


@router.get("", summary="How the service is", response_model_exclude_none=True, responses=_not_ok(Health))
async def health(response: Response, parts: Parts) -> Health:
    """The default model, the models in memory, refused versions. 503 while the default model cannot score."""
    status, reason = _state(parts)
    _mark(response, status == "ok")
    default = parts.registry.default_served()
    versions = {
        served.bundle.manifest.name: ModelVersion(
            name=served.bundle.manifest.name, version=served.bundle.manifest.version
        )
        for served in parts.registry.served
    }
    return Health(
        status=status,
        reason=reason,
        model=default and versions[parts.registry.default],
        models=list(versions.values()),
        refused=[RefusedModel(name=each.model, reason=each.reason) for each in parts.registry.refused],
        uptime_s=round(time.monotonic() - parts.started, 3),
    )


@router.get("/live", summary="Whether the process runs")
async def live() -> Liveness:
    """200 while the process runs: restart it when this stops answering."""
    return Liveness()


@router.get("/ready", summary="Whether pictures can be scored", response_model_exclude_none=True,
            responses=_not_ok(Readiness))  # fmt: skip
async def ready(response: Response, parts: Parts) -> Readiness:
    """200 or 503: send traffic while this is 200."""
    status, reason = _state(parts)
    _mark(response, status == "ok")
    return Readiness(status="ready" if status == "ok" else status, reason=reason)
