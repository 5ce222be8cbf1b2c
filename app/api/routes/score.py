"""POST /score: images in, verdicts out.

A plain ASGI endpoint: FastAPI's own machinery would cost more than decoding a small image and scoring it.
``app.api.openapi.document`` documents it with the very models that parse and describe it.
"""

import binascii
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import problems
from app.api.errors import AllRejected, NotAcceptable, Rejection, ShuttingDown
from app.api.feedback import with_ids
from app.api.http.deadline import deadline
from app.api.http.disconnect import cancelled_on_disconnect
from app.api.http.negotiation import best_type
from app.api.http.uploads import Upload, read_uploads
from app.api.problems import describe
from app.api.queries import Extra, ScoreQuery, parse_score_query
from app.api.services import Services
from app.api.telemetry.scored_requests import account, verdict
from app.inference.errors import InferenceError
from app.inference.images.rendering import error_map, png, side_by_side, to_pixels
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import Scored

_METHOD: Final = "POST"
_OK: Final = HTTPStatus.OK.value
_JSON: Final = "application/json"
_JSON_HEADER: Final = (b"content-type", _JSON.encode())
_PNG: Final = "image/png"


class ScoreEndpoint:
    """Says of each image whether it is an anomaly, and shows why."""

    path: Final = "/score"

    def __init__(self, services: Services) -> None:
        self._parts = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; every refusal, and every defect too, becomes a problem document."""
        scope["route"] = self
        try:
            with deadline(self._parts.settings.request_timeout_s):
                answer = await self._answer(scope, receive)
        except Exception as error:
            answer = await problems.document(Request(scope), error)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        if scope["method"] != _METHOD:
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": _METHOD})
        parts, headers = self._parts, Headers(scope=scope)
        if parts.draining.begun:
            raise ShuttingDown("the service is shutting down")
        media_type = best_type(",".join(headers.getlist("accept")), (_JSON, _PNG))
        query = parse_score_query(scope["query_string"])
        with await parts.registry.get(query.model) as served:
            return await self._score(served, media_type, query, headers, scope, receive)

    async def _score(
        self,
        served: ServedModel,
        media_type: str,
        query: ScoreQuery,
        headers: Headers,
        scope: Scope,
        receive: Receive,
    ) -> ASGIApp:
        parts = self._parts
        manifest = served.bundle.manifest
        rate = query.false_alarm_rate or manifest.false_alarm_rate
        threshold = served.bundle.calibration.threshold(rate, manifest.guarantee)
        parts.engine.require_room(served)
        uploads = await read_uploads(headers, receive, parts.intake)
        if media_type == _PNG and len(uploads) > 1:
            raise NotAcceptable(f"{_PNG} shows one image, {len(uploads)} were sent; ask for {_JSON}")
        with parts.engine.admit(served, len(uploads)):
            with cancelled_on_disconnect(scope):
                outcomes = await parts.engine.score_files(
                    served, [upload.data for upload in uploads], encode="reconstruction" in query.include
                )
            scope["state"]["scoring"] = account(served, threshold, outcomes)
            _require_one_scored(uploads, outcomes)
            pixels = len(outcomes) * manifest.input.height * manifest.input.width
            if media_type == _PNG:
                return await parts.engine.render(pixels, lambda: _image(served, threshold, outcomes[0]))
            body = await parts.engine.render(
                pixels,
                lambda: orjson.dumps(
                    with_ids(
                        parts.feedback, scope, uploads, _body(served, rate, threshold, uploads, outcomes, query.include)
                    )
                ),
            )
            return _Json(body)


class _Json:
    """An answer without what makes starlette's slow: it is the same few lines each time."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Sends it."""
        length = (b"content-length", b"%d" % len(self._body))
        await send({"type": "http.response.start", "status": _OK, "headers": [length, _JSON_HEADER]})
        await send({"type": "http.response.body", "body": self._body})


def _require_one_scored(uploads: Sequence[Upload], outcomes: Sequence[Scored | InferenceError]) -> None:
    rejections = [
        Rejection(upload.filename, outcome)
        for upload, outcome in zip(uploads, outcomes, strict=True)
        if not isinstance(outcome, Scored)
    ]
    if len(rejections) == len(outcomes):
        raise AllRejected(rejections)


def _body(
    served: ServedModel,
    rate: float,
    threshold: float,
    uploads: Sequence[Upload],
    outcomes: Sequence[Scored | InferenceError],
    extras: Sequence[Extra],
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


def _scored(upload: Upload, scored: Scored, threshold: float, extras: Sequence[Extra]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "status": "scored",
        "filename": upload.filename,
        "mse": scored.mse,
        "score": scored.score,
        "is_anomaly": scored.score > threshold,
        "verdict": verdict(scored, threshold),
        "p_value": scored.p_value,
        "warnings": scored.warnings,
    }
    if "input" in extras:
        result["input"] = _data_uri(png(to_pixels(scored.original)))
    if "reconstruction" in extras:
        result["reconstruction"] = _data_uri(scored.reconstruction_png())
    if "error_map" in extras:
        result["error_map"] = _data_uri(png(error_map(scored.original, scored.reconstruction)))
    return result


def _rejected(upload: Upload, refusal: InferenceError) -> dict[str, Any]:
    return {"status": "rejected", "filename": upload.filename, "error": describe(refusal)}


def _image(served: ServedModel, threshold: float, scored: Scored | InferenceError) -> Response:
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
            "X-Anomaly-Verdict": verdict(scored, threshold),
            "X-Anomaly-Model": f"{manifest.name}/{manifest.version}",
        },
    )


def _data_uri(file: bytes) -> str:
    return "data:image/png;base64," + binascii.b2a_base64(file, newline=False).decode()
