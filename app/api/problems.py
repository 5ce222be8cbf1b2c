"""The one table that says which status every refusal becomes, and the shapes in which it is told.

Errors are problem documents (RFC 9457); under /v2 they have the shape of the Open Inference Protocol.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api import errors as http
from app.inference import errors as domain

MEDIA_TYPE: Final = "application/problem+json"
_RETRY_AFTER_S: Final = "1"
_INFERENCE_PATH: Final = re.compile(r"/v2(/|$)")
_CLIENT_CLOSED: Final = 499  # nobody reads it; the access log and the metrics do


@dataclass(frozen=True)
class Kind:
    """One sort of problem: its stable identifier, its human name, its status, headers that go with it."""

    slug: str
    title: str
    status: int
    headers: Mapping[str, str] | None = None

    @property
    def type(self) -> str:
        """The problem type URI."""
        return f"urn:problem-type:{self.slug}"


_RETRY: Final = {"Retry-After": _RETRY_AFTER_S}

KINDS: Final[Mapping[type[Exception], Kind]] = {
    http.MalformedMultipart: Kind("malformed-multipart", "Multipart body does not parse", 400),
    http.NoImage: Kind("no-image", "No image in the request", 400),
    http.InvalidInference: Kind("invalid-inference", "Inference request cannot be used", 400),
    http.Unauthorized: Kind("unauthorized", "Key missing or wrong", 401, {"WWW-Authenticate": "Bearer"}),
    domain.UnknownModel: Kind("unknown-model", "No such model", 404),
    domain.UnknownFile: Kind("unknown-file", "No such file", 404),
    domain.UnknownVersion: Kind("unknown-version", "No such version is served", 404),
    http.FeedbackOff: Kind("feedback-off", "Labels are not kept", 404),
    http.UnknownAnswer: Kind("unknown-answer", "No such answer", 404),
    http.NotAcceptable: Kind("not-acceptable", "Accept cannot be served", 406),
    http.BodyTooLarge: Kind("body-too-large", "Request body too large", 413),
    http.TooManyFiles: Kind("too-many-files", "Too many files", 413),
    domain.TooManyPixels: Kind("too-many-pixels", "ImageFile has too many pixels", 413),
    http.UnsupportedMediaType: Kind("unsupported-media-type", "Body is neither an image nor multipart", 415),
    domain.UnreadableImage: Kind("unreadable-image", "Not a readable image", 422),
    domain.UnsupportedFalseAlarmRate: Kind("unsupported-false-alarm-rate", "False-alarm rate not supported", 422),
    http.InvalidParameter: Kind("invalid-parameter", "Invalid parameter", 422),
    http.InvalidLabel: Kind("invalid-label", "Label cannot be used", 422),
    domain.NonFiniteScore: Kind("non-finite-score", "The model gave no usable score", 422),
    domain.Overloaded: Kind("overloaded", "Queue full", 429, _RETRY),
    domain.ModelUnavailable: Kind("model-unavailable", "Model not ready", 503, _RETRY),
    domain.BundleRejected: Kind("model-unavailable", "Model not ready", 503, _RETRY),
    domain.LabelNotKept: Kind("label-not-kept", "Label could not be kept", 503),
    http.ShuttingDown: Kind("shutting-down", "Shutting down", 503, _RETRY),
    http.RequestTimedOut: Kind("timeout", "Request took too long", 504),
}

_log = structlog.get_logger(__name__)

_INTERNAL: Final = Kind("internal", "Internal error", 500)


def describe(error: Exception) -> dict[str, Any]:
    """``type``, ``title``, ``status`` and ``detail`` of a refusal."""
    kind = KINDS[type(error)]
    return {"type": kind.type, "title": kind.title, "status": kind.status, "detail": str(error)}


def response(
    request_id: str, kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """A problem document as an answer; ``members`` extend it."""
    body = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": request_id,
        **members,
    }
    return Response(orjson.dumps(body), kind.status, {**(kind.headers or {}), **(headers or {})}, media_type=MEDIA_TYPE)


def inference_status(kind: Kind) -> int:
    """A refusal's status under the Open Inference Protocol: what is wrong with a request itself is 400 there."""
    return HTTPStatus.BAD_REQUEST if kind.status == HTTPStatus.UNPROCESSABLE_ENTITY else kind.status


def refusal(request: Request, error: Exception) -> Response:
    """The answer to a refusal of the table."""
    return _told(request, KINDS[type(error)], str(error))


def _told(
    request: Request, kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """A problem in the shape that the request's route is to tell it in."""
    if not _INFERENCE_PATH.match(request.scope["path"]):
        return response(_id(request), kind, detail, headers=headers, **members)
    return Response(
        orjson.dumps({"error": detail}),
        inference_status(kind),
        {**(kind.headers or {}), **(headers or {})},
        media_type="application/json",
    )


def _id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


async def _on_refusal(request: Request, error: Exception) -> Response:
    return refusal(request, error)


async def _on_all_rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, http.AllRejected)  # noqa: S101  for the type checker
    kind = KINDS[type(error.rejections[0].reason)]
    rejected = [{"filename": each.filename, **describe(each.reason)} for each in error.rejections]
    return _told(request, kind, str(error), errors=rejected)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    found = [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()]
    return _told(request, KINDS[http.InvalidParameter], "; ".join(found))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    title = HTTPStatus(error.status_code).phrase
    kind = Kind(title.lower().replace(" ", "-"), title, error.status_code)
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {request.url.path}"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not possible on {request.url.path}"
    return _told(request, kind, detail, headers=error.headers)


async def _on_disconnect(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=_CLIENT_CLOSED)


async def _on_defect(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return _told(request, _INTERNAL, "this is a defect of the service; its log has the details")


HANDLERS: Final[dict[Any, Any]] = {
    **dict.fromkeys(KINDS, _on_refusal),
    http.AllRejected: _on_all_rejected,
    RequestValidationError: _on_invalid,
    HTTPException: _on_http_error,
    ClientDisconnect: _on_disconnect,
    Exception: _on_defect,
}
"""What makes every error that leaves a route a problem document."""


async def document(request: Request, error: Exception) -> Response:
    """The answer to whatever a route has raised."""
    sort = next(each for each in type(error).__mro__ if each in HANDLERS)
    if sort is Exception:
        _log.exception("defect", request_id=_id(request))
    response: Response = await HANDLERS[sort](request, error)
    return response
