"""POST /score: scores uploaded images.

A plain ASGI endpoint, because FastAPI's request handling takes longer than decoding and scoring a small image.
``app.api.openapi.document`` describes it.
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

from app.api import problems, scoring
from app.api.errors import AllRejected, NotAcceptable, RejectedFile
from app.api.feedback import add_ids
from app.api.http.body.uploads import Upload, read_uploads
from app.api.http.deadline import deadline
from app.api.http.negotiation import best_type
from app.api.queries import Extra, ScoreQuery, parse_score_query
from app.api.request_state import request_state
from app.api.services import Services
from app.inference.images.rendering import png, side_by_side, to_pixels
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import Rejected, Scored
from app.inference.serving.localization import PICTURE_PIXELS
from app.inference.serving.scoring import Results

NUMBER_HEADERS: Final = (
    "X-Anomaly-MSE",
    "X-Anomaly-Score",
    "X-Anomaly-Threshold",
    "X-Anomaly-P-Value",
    "X-Anomaly-Verdict",
    "X-Anomaly-Model",
)
"""The headers of PNG responses."""

_METHOD: Final = "POST"
_OK: Final = HTTPStatus.OK.value
_JSON: Final = "application/json"
_JSON_HEADER: Final = (b"content-type", _JSON.encode())
_PNG: Final = "image/png"
_BYTES_PER_VALUE: Final = 4  # of a PNG file as base64, once by itself and once in the answer


class ScoreEndpoint:
    """The ASGI endpoint. It has a ``path`` as routes have, for log and metrics."""

    path: Final = "/score"

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request. Exceptions become problem documents."""
        scope["route"] = self
        try:
            with deadline(self._services.settings.request_timeout_s):
                answer = await self._answer(scope, receive)
        except Exception as error:
            answer = await problems.respond(Request(scope), error)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        if scope["method"] != _METHOD:
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": _METHOD})
        scoring.require_running(self._services)
        headers = Headers(scope=scope)
        media_type = best_type(",".join(headers.getlist("accept")), (_JSON, _PNG))
        query = parse_score_query(scope["query_string"])
        with await self._services.registry.get(query.model) as model:
            return await self._score(model, media_type, query, scope, receive)

    async def _score(
        self, model: ServedModel, media_type: str, query: ScoreQuery, scope: Scope, receive: Receive
    ) -> ASGIApp:
        services, claim = self._services, request_state(scope).claim
        decided_by = await scoring.decision(model, query)
        services.engine.require_room(model, client=claim.client)
        uploads = await read_uploads(
            Headers(scope=scope), receive, services.body_reader, claim, services.settings.max_files
        )
        if media_type == _PNG and len(uploads) > 1:
            raise NotAcceptable(f"{_PNG} shows one image, {len(uploads)} were sent; request {_JSON}")

        def render(results: Results) -> Results | ASGIApp:
            _require_one_scored(uploads, results)
            if media_type == _PNG:
                return results if query.view == "overlay" else _png_response(results, _strip(results))
            body = _body(results, uploads, query.include)
            if query.fdr is not None:
                body["fdr"] = query.fdr
            if services.feedback is not None:
                add_ids(services.feedback, request_state(scope).request_id, uploads, body)
            return _Json(orjson.dumps(body))

        files = [Rejected(upload.error) if upload.error else upload.data for upload in uploads]
        answer = await scoring.answer(
            services,
            scope,
            model,
            files,
            decided_by,
            render,
            bytes_per_value=_BYTES_PER_VALUE * len(query.include),
            picture_pixels=PICTURE_PIXELS if "mask" in query.include else 0,
            encode="reconstruction" in query.include and media_type == _JSON,
        )
        if not isinstance(answer, Results):
            return answer
        return _png_response(answer, await scoring.overlay(services, scope, model, uploads[0].data, answer))


class _Json:
    """A JSON response as two fixed ASGI messages, which is faster than Starlette's response class."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Sends the response."""
        length = (b"content-length", b"%d" % len(self._body))
        await send({"type": "http.response.start", "status": _OK, "headers": [length, _JSON_HEADER]})
        await send({"type": "http.response.body", "body": self._body})


def _require_one_scored(uploads: Sequence[Upload], results: Results) -> None:
    rejected = results.rejected
    if len(rejected) == len(uploads):
        files = zip(uploads, rejected, strict=True)
        raise AllRejected([RejectedFile(upload.filename, each.reason) for upload, each in files])


def _body(results: Results, uploads: Sequence[Upload], extras: Sequence[Extra]) -> dict[str, Any]:
    manifest, point = results.bundle.manifest, results.point
    return {
        "model": {"name": manifest.name, "version": manifest.version},
        "threshold": point.threshold,
        "false_alarm_rate": point.false_alarm_rate,
        "results": [
            _rejected(upload, outcome) if isinstance(outcome, Rejected) else _scored(upload, outcome, results, extras)
            for upload, outcome in zip(uploads, results.outcomes, strict=True)
        ],
    }


def _scored(upload: Upload, scored: Scored, results: Results, extras: Sequence[Extra]) -> dict[str, Any]:
    point = results.point
    result: dict[str, Any] = {
        "status": "scored",
        "filename": upload.filename,
        "mse": scored.mse,
        "score": scored.score,
        "is_anomaly": point.is_anomaly(scored.score),
        "verdict": point.verdict(scored.score),
        "out_of_scope": results.out_of_scope(scored),
        "p_value": scored.p_value,
        "warnings": results.warnings(scored),
    }
    if results.has_regions:
        result["regions"] = [each._asdict() for each in results.regions(scored)]
    if "input" in extras:
        result["input"] = _data_uri(png(to_pixels(scored.original)))
    if "reconstruction" in extras:
        result["reconstruction"] = _data_uri(scored.reconstruction_png())
    if "error_map" in extras:
        result["error_map"] = _data_uri(png(results.error_map(scored)))
    if "mask" in extras and results.has_regions:
        result["mask"] = _data_uri(png(results.localize(scored).mask()))
    return result


def _rejected(upload: Upload, rejected: Rejected) -> dict[str, Any]:
    return {"status": "rejected", "filename": upload.filename, "error": problems.describe(rejected.reason)}


def _strip(results: Results) -> bytes:
    """Input, reconstruction and error map side by side in one PNG file."""
    (scored,) = results.scored
    return png(side_by_side(scored.original, scored.reconstruction, results.error_map(scored)))


def _png_response(results: Results, file: bytes) -> Response:
    """A picture of the one image of a request, with the numbers as headers."""
    (scored,) = results.scored
    manifest, point = results.bundle.manifest, results.point
    numbers = (
        repr(scored.mse),
        repr(scored.score),
        repr(point.threshold),
        repr(scored.p_value),
        point.verdict(scored.score),
        f"{manifest.name}/{manifest.version}",
    )
    return Response(file, media_type=_PNG, headers=dict(zip(NUMBER_HEADERS, numbers, strict=True)))


def _data_uri(file: bytes) -> str:
    return "data:image/png;base64," + binascii.b2a_base64(file, newline=False).decode()
