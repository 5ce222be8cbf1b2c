"""GET /models, /models/{name}, its calibration, its drift and its report: the model cards."""

import asyncio
from bisect import bisect_right
from pathlib import PurePath
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from app.api.openapi import document as openapi
from app.api.openapi import examples
from app.api.schemas import CalibrationScores, DriftAnswer, ModelCard, Models, RefusedModel
from app.api.services import RequestServices
from app.inference.errors import BundleRejected, UnknownModel
from app.inference.serving.registry import ModelRegistry

router = APIRouter(prefix="/models", tags=["models"])

_REPORT_TYPES: Final = {".html": "text/html; charset=utf-8", ".png": "image/png"}
_REPORT_HEADERS: Final = {
    "Cache-Control": "no-cache",
    # The report came with the model: it may show its images, and do nothing else.
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


@router.get(
    "",
    summary="The models of the store",
    responses={200: openapi.answer("The store", examples.MODELS), **openapi.PAGE_RESPONSES},
)
async def models(
    services: RequestServices,
    limit: Annotated[int, Query(ge=1, le=500, description="most names on one page")] = 50,
    after: Annotated[
        str, Query(max_length=64, description="the page begins behind this name: `next` of the last")
    ] = "",
) -> Models:
    """By name, the cards of the models, and those whose current version cannot be served. Follow `next` for all."""
    refused = {each.model: each.reason for each in services.registry.refused}
    return await asyncio.to_thread(_survey, services.registry, refused, limit, after)


@router.get(
    "/{name}",
    summary="One model card",
    responses={200: openapi.answer("The card", examples.CARD), **openapi.MODEL_RESPONSES},
)
async def model(name: str, services: RequestServices) -> ModelCard:
    """Version, input, threshold, calibration, evaluation, training, data fingerprint, checksums, libraries."""
    return await asyncio.to_thread(lambda: ModelCard.of(services.registry.manifest(name)))


@router.get(
    "/{name}/calibration",
    summary="What decides",
    responses={200: openapi.answer("Scores and thresholds", examples.CALIBRATION), **openapi.MODEL_RESPONSES},
)
async def calibration(name: str, services: RequestServices) -> CalibrationScores:
    """The calibration scores, ascending, and the threshold of each false-alarm rate that is worth trying.

    With them a client decides scored images anew at another sensitivity: anomaly is exactly `score > threshold`.
    """
    return await asyncio.to_thread(lambda: CalibrationScores.of(services.registry.manifest(name)))


@router.get(
    "/{name}/drift",
    summary="Whether images have changed",
    responses={200: openapi.answer("The last window of images", examples.DRIFT), **openapi.MODEL_RESPONSES},
)
async def drift(name: str, services: RequestServices) -> DriftAnswer:
    """Compares the scores of every window of images with the calibration scores.

    Of all workers of this service together; what the others have seen may be two seconds old.
    """
    services.request_log.flush()
    manifest = await asyncio.to_thread(services.registry.manifest, name)
    states = await services.drift.states(manifest.name, manifest.version)
    return await asyncio.to_thread(DriftAnswer.of, manifest, states)


@router.get(
    "/{name}/report/{file}",
    summary="A file of the training report",
    response_class=Response,
    responses=openapi.REPORT_RESPONSES,
)
async def report(name: str, file: str, request: Request, services: RequestServices) -> Response:
    """`index.html`, or one of its images: the names under `report/` in the model card's `files`.

    Each is compared with its SHA-256 before it leaves; the `ETag` is that SHA-256.
    """
    registry = services.registry
    manifest = await asyncio.to_thread(registry.manifest, name)
    content = await asyncio.to_thread(registry.store.file, manifest, f"report/{file}")
    tag = f'"{manifest.files[f"report/{file}"].sha256}"'
    headers = {**_REPORT_HEADERS, "ETag": tag}
    if tag in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    media_type = _REPORT_TYPES.get(PurePath(file).suffix, "application/octet-stream")
    return Response(content, media_type=media_type, headers=headers)


def _survey(registry: ModelRegistry, refused: dict[str, str], limit: int, after: str) -> Models:
    names = sorted({*registry.store.names(), *refused})
    start = bisect_right(names, after)
    page, cards = names[start : start + limit], []
    for name in page:
        # A broken neighbour must not hide the others: here a refusal is part of the answer.
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
