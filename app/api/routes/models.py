"""GET /models and /models/{name}, with calibration, drift and report: what is known about the models."""

import asyncio
from bisect import bisect_right
from pathlib import PurePath
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from app.api.openapi import document as openapi
from app.api.openapi import examples
from app.api.schemas.drift import DriftAnswer
from app.api.schemas.model_cards import CalibrationScores, ModelCard, Models, RefusedModel
from app.api.services import RequestServices
from app.inference.errors import BundleRejected, UnknownModel
from app.inference.serving.registry import ModelRegistry

_MAX_PAGE: Final = 50  # cards, of which each is a file to read and has kilobytes
router = APIRouter(prefix="/models", tags=["models"])

_REPORT_TYPES: Final = {".html": "text/html; charset=utf-8", ".png": "image/png"}
_REPORT_HEADERS: Final = {
    "Cache-Control": "no-cache",
    # Reports are part of a model and not trusted: they may show inline styles and images, nothing else.
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'",
}


@router.get(
    "",
    summary="List models",
    response_model=Models,
    responses={200: openapi.example_response("A page of model cards", examples.MODELS), **openapi.PAGE_RESPONSES},
)
async def models(
    services: RequestServices,
    limit: Annotated[
        int, Query(ge=1, le=500, description=f"most models per page; more than {_MAX_PAGE} are never given")
    ] = _MAX_PAGE,
    after: Annotated[
        str, Query(max_length=64, description="the page starts after this name: `next` of the previous page")
    ] = "",
) -> Response:
    """Model cards by name, and models whose current version was refused. Follow `next` for the other pages."""
    refused = {each.model: each.reason for each in services.registry.refused}

    def page() -> str:  # a card has kilobytes: written here, they would delay other requests
        return _page_of(services.registry, refused, limit, after).model_dump_json()

    return Response(await services.registry.access.run(page), media_type="application/json")


@router.get(
    "/{name}",
    summary="Get a model card",
    responses={200: openapi.example_response("The model card", examples.CARD), **openapi.MODEL_RESPONSES},
)
async def model(name: str, services: RequestServices) -> ModelCard:
    """Version, input, threshold, calibration, evaluation, training, data fingerprint, checksums, library versions."""
    return await services.registry.access.run(lambda: ModelCard.of(services.registry.manifest(name)))


@router.get(
    "/{name}/calibration",
    summary="Get calibration scores and thresholds",
    responses={200: openapi.example_response("Scores and thresholds", examples.CALIBRATION), **openapi.MODEL_RESPONSES},
)
async def calibration(name: str, services: RequestServices) -> CalibrationScores:
    """The calibration scores, ascending, and the thresholds for round false-alarm rates.

    With a threshold from this list, a client can recompute the verdicts of scored images at another false-alarm rate:
    an image is an anomaly exactly if `score > threshold`.
    """
    return await services.registry.access.run(lambda: CalibrationScores.of(services.registry.manifest(name)))


@router.get(
    "/{name}/drift",
    summary="Get the drift state",
    responses={
        200: openapi.example_response("The state and the last window of images", examples.DRIFT),
        **openapi.MODEL_RESPONSES,
    },
)
async def drift(name: str, services: RequestServices) -> DriftAnswer:
    """The result of comparing the scores of each window of images with the calibration scores.

    Covers all workers of this service; the state of the other workers can be two seconds old.
    """
    services.request_log.flush()
    manifest = await services.registry.access.run(lambda: services.registry.manifest(name))
    states = await services.drift.states(manifest.name, manifest.version)
    return await asyncio.to_thread(DriftAnswer.of, manifest, states)


@router.get(
    "/{name}/report/{file}",
    summary="Get a file of the training report",
    response_class=Response,
    responses=openapi.REPORT_RESPONSES,
)
async def report(name: str, file: str, request: Request, services: RequestServices) -> Response:
    """`index.html`, or one of its images. `files` of the model card lists the names, under `report/`.

    The file is verified against its SHA-256, which is also its `ETag`.
    """
    registry = services.registry
    manifest = await registry.access.run(lambda: registry.manifest(name))
    content = await registry.access.run(lambda: registry.store.file(manifest, f"report/{file}"))
    tag = f'"{manifest.files[f"report/{file}"].sha256}"'
    headers = {**_REPORT_HEADERS, "ETag": tag}
    if tag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    media_type = _REPORT_TYPES.get(PurePath(file).suffix, "application/octet-stream")
    return Response(content, media_type=media_type, headers=headers)


def _page_of(registry: ModelRegistry, refused: dict[str, str], limit: int, after: str) -> Models:
    names = sorted({*registry.store.names(), *refused})
    limit, start = min(limit, _MAX_PAGE), bisect_right(names, after)
    page, cards = names[start : start + limit], []
    for name in page:
        # One broken model must not hide the others: it is listed as refused.
        try:
            cards.append(ModelCard.of(registry.manifest(name)))
        except (BundleRejected, UnknownModel) as error:
            refused.setdefault(name, str(error))
    return Models(
        default=registry.default,
        models=cards,
        refused=[RefusedModel(name=name, reason=refused[name]) for name in page if name in refused],
        total=len(names),
        next=page[-1] if start + limit < len(names) else None,
    )
