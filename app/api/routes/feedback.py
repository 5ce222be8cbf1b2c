"""POST /feedback: operators' labels."""

import asyncio

from fastapi import APIRouter, Request

from app.api.errors import FeedbackOff
from app.api.http.deadline import deadline
from app.api.openapi import document as openapi
from app.api.request_state import request_state
from app.api.schemas import KeptLabel
from app.api.services import RequestServices

router = APIRouter(tags=["scoring"])


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
