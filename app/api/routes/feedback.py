"""POST /feedback: operators' labels."""

import asyncio

from fastapi import APIRouter, Request

from app.api.errors import FeedbackOff
from app.api.http.deadline import deadline
from app.api.openapi import document as openapi
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
    """Records what an image really is: `normal` or `anomaly`.

    `id` comes from the answer of `POST /score`, which has one for each scored image if labels are kept
    (`ANOMALY_FEEDBACK_PATH`). Labels do not change verdicts; `python -m training recalibrate --feedback` sets a
    threshold from them. Of several labels for one image the last counts.
    """
    if services.feedback is None:
        raise FeedbackOff("labels are not kept: ANOMALY_FEEDBACK_PATH is not set")
    with deadline(services.settings.request_timeout_s):
        body = await services.label_reader.read_body(request.headers, request.receive)
    return KeptLabel.of(await asyncio.to_thread(services.feedback.keep, body))
