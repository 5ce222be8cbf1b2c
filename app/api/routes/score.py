"""POST /score: pictures in, verdicts out."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from app.api import openapi
from app.api.errors import AllRejected, InvalidParameter, NotAcceptable, Rejection, RequestTimedOut
from app.api.negotiation import best_type
from app.api.problems import KINDS, describe
from app.api.schemas import ScoreAnswer
from app.api.services import Services, services
from app.api.uploads import Upload, read_uploads
from app.inference.engine import Scored, ServedModel
from app.inference.errors import InferenceError
from app.inference.rendering import error_map, png, side_by_side, to_image

router = APIRouter(tags=["scoring"])

_JSON: Final = "application/json"
_PNG: Final = "image/png"
_EXTRAS: Final = ("reconstruction", "error_map")


@router.post(
    "/score",
    summary="Score pictures",
    responses=openapi.SCORE_RESPONSES,
    openapi_extra=openapi.SCORE_REQUEST,
    response_model=ScoreAnswer,
)
async def score(
    request: Request,
    parts: Annotated[Services, Depends(services)],
    model: Annotated[str | None, Query(description="a name in the store")] = None,
    false_alarm_rate: Annotated[
        float | None, Query(gt=0, lt=1, description="share of normal pictures that may be called anomalies")
    ] = None,
    include: Annotated[
        list[str], Query(description="comma list of reconstruction, error_map; empty: numbers alone")
    ] = ["reconstruction"],  # noqa: B006  FastAPI copies it
) -> Response:
    """Says of each picture whether it is an anomaly, and shows why.

    Send one or many files as `multipart/form-data` under the name `file` or `files`, or one picture as the raw
    body with its `image/*` type. `Accept: image/png` answers, for one picture, with what the model saw, the
    reconstruction and the error map side by side.
    """
    media_type = best_type(",".join(request.headers.getlist("accept")), (_JSON, _PNG))
    extras = _parse_include(",".join(include))
    async with _deadline(parts.settings.request_timeout_s):
        served = await parts.registry.get(model)
        manifest = served.bundle.manifest
        rate = manifest.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
        threshold = served.bundle.calibration.threshold(rate, manifest.guarantee)
        uploads = await read_uploads(
            request, max_body_bytes=parts.settings.max_body_bytes, max_files=parts.settings.max_files
        )
        if media_type == _PNG and len(uploads) > 1:
            raise NotAcceptable(f"{_PNG} shows one picture, {len(uploads)} were sent; ask for {_JSON}")
        with parts.engine.admit(len(uploads)):
            outcomes = await parts.engine.score_files(served, [upload.data for upload in uploads])
            _account(request, parts, served, threshold, outcomes)
            _require_one_scored(uploads, outcomes)
            pixels = len(outcomes) * manifest.input.height * manifest.input.width
            if media_type == _PNG:
                return await parts.engine.render(pixels, lambda: _picture(served, threshold, outcomes[0]))
            body = await parts.engine.render(
                pixels, lambda: orjson.dumps(_answer(served, rate, threshold, uploads, outcomes, extras))
            )
            return Response(body, media_type=_JSON)


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RequestTimedOut(f"the request took longer than {seconds:g} s, upload included") from None


def _parse_include(text: str) -> tuple[str, ...]:
    wanted = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in wanted:
        if name not in _EXTRAS:
            raise InvalidParameter(f"include: {name[:40]!r} is none of {', '.join(_EXTRAS)}")
    return wanted


def _verdict(scored: Scored, threshold: float) -> str:
    return "anomaly" if scored.score > threshold else "normal"


def _account(
    request: Request,
    parts: Services,
    served: ServedModel,
    threshold: float,
    outcomes: Sequence[Scored | InferenceError],
) -> None:
    """Counts verdicts and rejections, and hands them to the access line."""
    manifest = served.bundle.manifest
    counts = {"anomaly": 0, "normal": 0, "rejected": 0}
    for outcome in outcomes:
        if isinstance(outcome, Scored):
            verdict = _verdict(outcome, threshold)
            counts[verdict] += 1
            parts.metrics.count_scored(manifest.name, outcome, verdict)
        else:
            counts["rejected"] += 1
            parts.metrics.rejected.labels(KINDS[type(outcome)].slug).inc()
    request.state.log = {"model": manifest.name, "version": manifest.version, **counts}


def _require_one_scored(uploads: Sequence[Upload], outcomes: Sequence[Scored | InferenceError]) -> None:
    rejections = [
        Rejection(upload.filename, outcome)
        for upload, outcome in zip(uploads, outcomes, strict=True)
        if not isinstance(outcome, Scored)
    ]
    if len(rejections) == len(outcomes):
        raise AllRejected(rejections)


def _answer(
    served: ServedModel,
    rate: float,
    threshold: float,
    uploads: Sequence[Upload],
    outcomes: Sequence[Scored | InferenceError],
    extras: Sequence[str],
) -> dict[str, Any]:
    manifest = served.bundle.manifest
    return {
        "model": {"name": manifest.name, "version": manifest.version},
        "threshold": threshold,
        "false_alarm_rate": rate,
        "results": [
            _scored(upload, outcome, threshold, extras) if isinstance(outcome, Scored) else _rejected(upload, outcome)
            for upload, outcome in zip(uploads, outcomes, strict=True)
        ],
    }


def _scored(upload: Upload, scored: Scored, threshold: float, extras: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "status": "scored",
        "filename": upload.filename,
        "mse": scored.mse,
        "score": scored.score,
        "is_anomaly": scored.score > threshold,
        "verdict": _verdict(scored, threshold),
        "p_value": scored.p_value,
        "warnings": scored.warnings,
    }
    if "reconstruction" in extras:
        result["reconstruction"] = _data_uri(png(to_image(scored.reconstruction)))
    if "error_map" in extras:
        result["error_map"] = _data_uri(png(error_map(scored.original, scored.reconstruction)))
    return result


def _rejected(upload: Upload, refusal: InferenceError) -> dict[str, Any]:
    return {"status": "rejected", "filename": upload.filename, "error": describe(refusal)}


def _picture(served: ServedModel, threshold: float, scored: Scored | InferenceError) -> Response:
    assert isinstance(scored, Scored)  # noqa: S101  _require_one_scored saw to it
    manifest = served.bundle.manifest
    return Response(
        png(side_by_side(scored.original, scored.reconstruction)),
        media_type=_PNG,
        headers={
            "X-Anomaly-MSE": repr(scored.mse),
            "X-Anomaly-Score": repr(scored.score),
            "X-Anomaly-Threshold": repr(threshold),
            "X-Anomaly-P-Value": repr(scored.p_value),
            "X-Anomaly-Verdict": _verdict(scored, threshold),
            "X-Anomaly-Model": f"{manifest.name}/{manifest.version}",
        },
    )


def _data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
