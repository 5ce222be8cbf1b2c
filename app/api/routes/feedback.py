"""POST and GET /feedback: operators' labels and the images that belong to them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.api.errors import FeedbackOff
from app.api.http.deadline import deadline
from app.api.http.negotiation import best_type
from app.api.openapi import document as openapi
from app.api.request_state import request_state
from app.api.schemas.labels import KeptLabel, KeptLabels
from app.api.services import RequestServices
from app.inference.bundles.labels import latest
from app.inference.errors import LabelNotKept

router = APIRouter(tags=["scoring"])

_JSON: Final = "application/json"
_JSON_LINES: Final = "application/jsonl"
_CHUNK_BYTES: Final = 2**20


@router.post(
    "/feedback",
    status_code=201,
    summary="Label a scored image",
    responses=openapi.LABEL_RESPONSES,
    openapi_extra=openapi.LABEL_REQUEST,
)
async def feedback(request: Request, services: RequestServices) -> KeptLabel:
    """Stores an operator's label for a scored image: `normal` or `anomaly`.

    `POST /score` returns the `id` of each scored image if labels are kept (`ANOMALY_FEEDBACK_PATH`). Labels do not
    change verdicts; `python -m training recalibrate --feedback` computes a new threshold from them. If an image has
    several labels, the last one is used.
    """
    if services.feedback is None:
        raise FeedbackOff("labels are not kept: ANOMALY_FEEDBACK_PATH is not set")
    with deadline(services.settings.request_timeout_s):
        body = await services.label_reader.read_body(
            request.headers, request.receive, request_state(request.scope).claim
        )
    return KeptLabel.of(await asyncio.to_thread(services.feedback.keep, body))


@router.get("/feedback", summary="List labels", response_model=KeptLabels, responses=openapi.LABELS_RESPONSES)
async def labels(
    request: Request,
    services: RequestServices,
    limit: Annotated[int, Query(ge=1, le=1000, description="most labels in a JSON answer")] = 200,
) -> Response:
    """The last labels, and whether labels and images are stored at all.

    `Accept: application/jsonl` downloads the whole label file, one label per line, the oldest first.
    """
    media_type = best_type(request.headers.get("accept"), (_JSON, _JSON_LINES))
    kept = services.feedback
    if media_type == _JSON_LINES:
        headers = {"Content-Disposition": 'attachment; filename="labels.jsonl"'}
        return StreamingResponse(_content(kept.path) if kept else iter(()), media_type=media_type, headers=headers)
    try:
        found = await asyncio.to_thread(latest, kept.path, limit) if kept else []
    except OSError as error:
        raise LabelNotKept(f"the label file cannot be read: {error.strerror}") from error
    body = KeptLabels(
        kept=kept is not None,
        images_kept=kept is not None and kept.images is not None,
        labels=[KeptLabel.of(label) for label in found],
    )
    return Response(body.model_dump_json(), media_type=_JSON)


@router.get(
    "/feedback/images/{name}",
    summary="Get a labelled image",
    response_class=Response,
    responses=openapi.LABELLED_IMAGE_RESPONSES,
)
async def labelled_image(name: str, services: RequestServices) -> Response:
    """An image that was stored with a label; `image` of the label is its name."""
    images = services.feedback and services.feedback.images
    if not images:
        raise FeedbackOff("images are not stored: ANOMALY_FEEDBACK_IMAGES is not set")
    content, media_type = await asyncio.to_thread(images.read, name)
    # Images come from clients and are not trusted.
    headers = {"Content-Security-Policy": "sandbox; default-src 'none'", "Cache-Control": "private, max-age=86400"}
    return Response(content, media_type=media_type, headers=headers)


def _content(path: Path) -> Iterator[bytes]:
    """The file, in chunks."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
