"""/v2: the Open Inference Protocol (KServe, Triton and others), for clients and platforms that speak it already.

Images come as tensors of the model's own size and are not decoded, but for that they go the way of ``POST /score``.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from app import __version__
from app.api.errors import ShuttingDown
from app.api.http.deadline import deadline
from app.api.http.disconnect import cancelled_on_disconnect
from app.api.services import Services, services
from app.api.telemetry.scored_requests import account
from app.api.v2 import openapi as document
from app.api.v2.schemas import (
    BINARY_EXTENSION,
    INPUT,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from app.api.v2.tensors import JSON_LENGTH_HEADER, OUTPUTS, read_images, read_request, write_answer
from app.inference.bundles.manifest import Manifest
from app.inference.errors import InferenceError, ModelUnavailable, UnknownVersion
from app.inference.images.decoding import Decoded
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import Scored

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

Parts = Annotated[Services, Depends(services)]

_MODEL: Final = "/models/{name}"
_VERSION: Final = "/models/{name}/versions/{version}"


@router.get("/health/live", summary="Whether the process runs", responses=document.LIVE)
async def live() -> ServerLive:
    """200 while the process runs."""
    return ServerLive(live=True)


@router.get("/health/ready", summary="Whether images can be scored", responses=document.READY)
async def ready(parts: Parts) -> ServerReady:
    """200 while the default model can score."""
    _require_open(parts)
    if parts.registry.default_served() is None:
        raise ModelUnavailable(parts.registry.why_unavailable(parts.registry.default))
    return ServerReady(ready=True)


@router.get("", summary="The service", responses=document.SERVER)
async def server_metadata() -> ServerMetadata:
    """Name, version and the extensions of the protocol that it has."""
    return ServerMetadata(name="anomaly-service", version=__version__, extensions=[BINARY_EXTENSION])


@router.get(_MODEL, summary="A model", responses=document.MODEL, response_model_exclude_none=True)
async def model_metadata(parts: Parts, name: str) -> ModelMetadata:
    """Its version, its inputs and its outputs."""
    return await _metadata(parts, name)


@router.get(_VERSION, summary="A version of a model", responses=document.MODEL, response_model_exclude_none=True)
async def version_metadata(parts: Parts, name: str, version: str) -> ModelMetadata:
    """The same. Only the version that is served exists."""
    return await _metadata(parts, name, version)


@router.get(_MODEL + "/ready", summary="Whether a model can score", responses=document.MODEL_READY)
async def model_ready(parts: Parts, name: str) -> ModelReady:
    """200 when it can; a model that is not in memory is loaded for it."""
    return await _ready(parts, name)


@router.get(_VERSION + "/ready", summary="Whether a version of a model can score", responses=document.MODEL_READY)
async def version_ready(parts: Parts, name: str, version: str) -> ModelReady:
    """200 when it is the one that is served."""
    return await _ready(parts, name, version)


@router.post(_MODEL + "/infer", include_in_schema=False)
async def model_infer(request: Request, parts: Parts, name: str) -> Response:
    """Scores the images of one tensor; ``app.api.v2.openapi`` describes it."""
    return await _infer(request, parts, name)


@router.post(_VERSION + "/infer", include_in_schema=False)
async def version_infer(request: Request, parts: Parts, name: str, version: str) -> Response:
    """The same, if that version is served."""
    return await _infer(request, parts, name, version)


async def _metadata(parts: Services, name: str, version: str | None = None) -> ModelMetadata:
    manifest = await asyncio.to_thread(parts.registry.card, name)
    _require_version(manifest, version)
    return ModelMetadata(
        name=manifest.name,
        versions=[manifest.version],
        platform="pytorch_torchscript",
        inputs=[
            TensorMetadata(
                name=INPUT,
                datatype="FP32",
                shape=[-1, *manifest.input.shape],
                parameters={"accepts": "FP32 with values in [0, 1], or UINT8 from 0 to 255"},
            )
        ],
        outputs=[
            TensorMetadata(name=output, datatype=each.datatype, shape=[-1, *each.shape(manifest.input)])
            for output, each in OUTPUTS.items()
        ],
    )


async def _ready(parts: Services, name: str, version: str | None = None) -> ModelReady:
    _require_open(parts)
    await _served(parts, name, version)
    return ModelReady(name=name, ready=True)


async def _infer(request: Request, parts: Services, name: str, version: str | None = None) -> Response:
    with deadline(parts.settings.request_timeout_s):
        _require_open(parts)
        with await _served(parts, name, version) as served:
            content, json_length = await _answer(request, parts, served)
    if json_length is None:
        return Response(content, media_type="application/json")
    headers = {JSON_LENGTH_HEADER: str(json_length)}
    return Response(content, headers=headers, media_type="application/octet-stream")


async def _answer(request: Request, parts: Services, served: ServedModel) -> tuple[bytes, int | None]:
    """The answer's body, and how much of it is JSON if there is more."""
    parts.engine.require_room(served)
    body = await parts.intake.read_body(request.headers, request.receive)
    manifest, max_images = served.bundle.manifest, parts.intake.max_files
    asked, behind = read_request(request.headers, body, manifest.input, max_images)
    rate = asked.parameters.false_alarm_rate or manifest.false_alarm_rate
    threshold = served.bundle.calibration.threshold(rate, manifest.guarantee)
    images = read_images(asked, behind, manifest.input, max_images)
    with parts.engine.admit(served, len(images)):
        with cancelled_on_disconnect(request.scope):
            outcomes = await served.run(Decoded(image, ()) for image in images)
        request.scope["state"]["scoring"] = account(served, threshold, outcomes)
        scored = _all_scored(outcomes)
        members = {
            "model_name": manifest.name,
            "model_version": manifest.version,
            **({} if asked.id is None else {"id": asked.id}),
            "parameters": {"threshold": threshold, "false_alarm_rate": rate},
        }
        return await parts.engine.render(images.numel(), lambda: write_answer(asked, scored, threshold, members))


def _all_scored(outcomes: Sequence[Scored | InferenceError]) -> list[Scored]:
    """A tensor has no place to say that one of its images has failed: then the request has."""
    for outcome in outcomes:
        if isinstance(outcome, InferenceError):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, Scored)]


async def _served(parts: Services, name: str, version: str | None) -> ServedModel:
    served = await parts.registry.get(name)
    _require_version(served.bundle.manifest, version)
    return served


def _require_version(manifest: Manifest, version: str | None) -> None:
    if version not in {None, manifest.version}:
        raise UnknownVersion(f"{manifest.name} is served in version {manifest.version} alone")


def _require_open(parts: Services) -> None:
    if parts.draining.begun:
        raise ShuttingDown("the service is shutting down")
