"""/v2: the Open Inference Protocol, as spoken by KServe, Triton and others.

Images are sent as tensors of the model's input size or as files; otherwise as in ``POST /score``.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Request, Response

from app import __version__
from app.api.http.deadline import deadline
from app.api.request_state import request_state
from app.api.scoring import answer, decision, require_running, why_unavailable
from app.api.services import RequestServices, Services
from app.api.v2 import openapi as document
from app.api.v2.schemas import (
    BINARY_EXTENSION,
    INPUT,
    InferenceRequest,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from app.api.v2.tensors import (
    JSON_LENGTH_HEADER,
    OUTPUTS,
    outputs_of,
    parsed_bytes,
    read_images,
    read_request,
    require_outputs,
    write_answer,
)
from app.inference.bundles.manifest import Manifest
from app.inference.errors import ModelUnavailable, UnknownVersion
from app.inference.images.model_input import DecodedImage
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.scoring import Results

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_MODEL: Final = "/models/{name}"
_SMALL_BODY_BYTES: Final = 64 * 1024  # read on the event loop; larger ones would delay other requests
_BYTES_PER_VALUE: Final = 48  # of two numbers as text: of the reconstruction and of the error map
_VERSION: Final = "/models/{name}/versions/{version}"


@router.get("/health/live", summary="Liveness check", responses=document.LIVE)
async def live() -> ServerLive:
    """200 while the process is running."""
    return ServerLive(live=True)


@router.get("/health/ready", summary="Readiness check", responses=document.READY)
async def ready(services: RequestServices) -> ServerReady:
    """200 while the default model can score."""
    require_running(services)
    if (reason := why_unavailable(services)) is not None:
        raise ModelUnavailable(reason)
    return ServerReady(ready=True)


@router.get("", summary="Get server metadata", responses=document.SERVER)
async def server_metadata() -> ServerMetadata:
    """Name, version and supported protocol extensions."""
    return ServerMetadata(name="anomaly-service", version=__version__, extensions=[BINARY_EXTENSION])


@router.get(_MODEL, summary="Get model metadata", responses=document.MODEL, response_model_exclude_none=True)
async def model_metadata(services: RequestServices, name: str) -> ModelMetadata:
    """The served version, the inputs and the outputs of a model."""
    return await _metadata(services, name)


@router.get(_VERSION, summary="Get version metadata", responses=document.MODEL, response_model_exclude_none=True)
async def version_metadata(services: RequestServices, name: str, version: str) -> ModelMetadata:
    """As `/v2/models/{name}`. Only the served version is available."""
    return await _metadata(services, name, version)


@router.get(_MODEL + "/ready", summary="Model readiness check", responses=document.MODEL_READY)
async def model_ready(services: RequestServices, name: str) -> ModelReady:
    """200 if the model can score. It is loaded first if necessary."""
    return await _ready(services, name)


@router.get(_VERSION + "/ready", summary="Version readiness check", responses=document.MODEL_READY)
async def version_ready(services: RequestServices, name: str, version: str) -> ModelReady:
    """200 if this version of the model is served and can score."""
    return await _ready(services, name, version)


@router.post(_MODEL + "/infer", include_in_schema=False)
async def model_infer(request: Request, services: RequestServices, name: str) -> Response:
    """Scores the images of a tensor. Documented in ``app.api.v2.openapi``."""
    return await _infer(request, services, name)


@router.post(_VERSION + "/infer", include_in_schema=False)
async def version_infer(request: Request, services: RequestServices, name: str, version: str) -> Response:
    """The same with a required version."""
    return await _infer(request, services, name, version)


async def _metadata(services: Services, name: str, version: str | None = None) -> ModelMetadata:
    manifest = await services.registry.access.run(lambda: services.registry.manifest(name))
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
                parameters={
                    "accepts": "FP32 with values in [0, 1], UINT8 from 0 to 255, "
                    "or BYTES of the shape [-1] or [-1, 1]: image files of any size, as base64 in JSON"
                },
            )
        ],
        outputs=[
            TensorMetadata(name=output, datatype=OUTPUTS[output].datatype, shape=[-1, *shape])
            for output, shape in outputs_of(manifest).items()
        ],
    )


async def _ready(services: Services, name: str, version: str | None = None) -> ModelReady:
    require_running(services)
    await _model(services, name, version)
    return ModelReady(name=name, ready=True)


async def _infer(request: Request, services: Services, name: str, version: str | None = None) -> Response:
    with deadline(services.settings.request_timeout_s):
        require_running(services)
        with await _model(services, name, version) as model:
            content, json_length = await _answer(request, services, model)
    if json_length is None:
        return Response(content, media_type="application/json")
    headers = {JSON_LENGTH_HEADER: str(json_length)}
    return Response(content, headers=headers, media_type="application/octet-stream")


async def _answer(request: Request, services: Services, model: ServedModel) -> tuple[bytes, int | None]:
    """The response body, and the length of its JSON object if tensors follow it."""
    claim = request_state(request.scope).claim
    services.engine.require_room(model, client=claim.client)
    body = await services.body_reader.read_body(request.headers, request.receive, claim)
    spec, max_images = model.bundle.spec, services.settings.max_files

    def read() -> tuple[InferenceRequest, Sequence[bytes | DecodedImage]]:
        inference, binary = read_request(request.headers, body, spec, max_images)
        require_outputs(inference, model.bundle.manifest)
        return inference, read_images(inference, binary, spec, max_images)

    if len(body) <= _SMALL_BODY_BYTES:
        inference, images = read()
    else:
        claim.take(await asyncio.to_thread(parsed_bytes, request.headers, body))
        inference, images = await asyncio.to_thread(read)
    decided_by = await decision(model, inference.parameters)

    def render(results: Results) -> tuple[bytes, int | None]:
        # An output tensor cannot represent a failed image, so the whole request fails.
        for rejected in results.rejected:
            raise rejected.reason
        return write_answer(inference, results)

    return await answer(
        services,
        request.scope,
        model,
        images,
        decided_by,
        render,
        bytes_per_value=_BYTES_PER_VALUE,
        diagnose=False,
    )


async def _model(services: Services, name: str, version: str | None) -> ServedModel:
    model = await services.registry.get(name)
    _require_version(model.bundle.manifest, version)
    return model


def _require_version(manifest: Manifest, version: str | None) -> None:
    if version not in {None, manifest.version}:
        raise UnknownVersion(f"{manifest.name} is served in version {manifest.version} only")
