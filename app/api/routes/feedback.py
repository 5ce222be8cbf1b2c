"""POST /feedback: what an operator says of a scored image."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.api.errors import FeedbackOff
from app.api.http.deadline import deadline
from app.api.openapi import document as openapi
from app.api.schemas import KeptLabel
from app.api.services import Services, services

router = APIRouter(tags=["scoring"])


@router.post(
    "/feedback",
    status_code=201,
    summary="Label a scored image",
    responses=openapi.LABEL_RESPONSES,
    openapi_extra=openapi.LABEL_REQUEST,
)
async def feedback(request: Request, parts: Annotated[Services, Depends(services)]) -> KeptLabel:
    """Says what an image really is: `normal` or `anomaly`.

    `id` is that of the image in the answer of `POST /score`, which has it when labels are kept
    (`ANOMALY_FEEDBACK_PATH`). Labels change no verdict; `python -m training recalibrate --feedback` sets a threshold by
    them. Of several labels for one image the last counts.
    """
    if parts.feedback is None:
        raise FeedbackOff("labels are not kept here: ANOMALY_FEEDBACK_PATH is not set")
    with deadline(parts.settings.request_timeout_s):
        body = await parts.feedback.intake.read_body(request.headers, request.receive)
    return KeptLabel.of(await asyncio.to_thread(parts.feedback.keep, body))
