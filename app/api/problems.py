"""The HTTP status of each error, and error responses.

Errors are problem documents (RFC 9457). Under /v2 they have the form of the Open Inference Protocol, under /2020-11-20
that of Amazon Lookout for Vision.
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
from app.api import lookout_errors
from app.api.request_state import request_state
from app.api.settings import PREFIX
from app.inference import errors as domain

MEDIA_TYPE: Final = "application/problem+json"
_RETRY_AFTER: Final = "Retry-After"
_RETRY_AFTER_S: Final = "1"  # unless the error says more
_INFERENCE_PATH: Final = re.compile(r"/v2(/|$)")
_CLIENT_CLOSED: Final = 499  # only for log and metrics: the client has disconnected


@dataclass(frozen=True)
class ProblemType:
    """A stable identifier, a readable title, the status, additional headers, and the setting that sets the limit."""

    slug: str
    title: str
    status: int
    headers: Mapping[str, str] | None = None
    setting: str | None = None

    @property
    def type(self) -> str:
        """The problem type URI."""
        return f"urn:problem-type:{self.slug}"


RETRY: Final = {_RETRY_AFTER: _RETRY_AFTER_S}

PROBLEM_TYPES: Final[Mapping[type[Exception], ProblemType]] = {
    http.MalformedMultipart: ProblemType("malformed-multipart", "Multipart body does not parse", 400),
    http.MalformedJson: ProblemType("malformed-json", "JSON body cannot be used", 400),
    http.MalformedEncoding: ProblemType("malformed-encoding", "Body does not decompress", 400),
    http.NoImage: ProblemType("no-image", "No image in the request", 400),
    http.InvalidInference: ProblemType("invalid-inference", "Inference request cannot be used", 400),
    http.InvalidHost: ProblemType("invalid-host", "Host header missing or invalid", 400),
    http.OriginRefused: ProblemType("cross-origin-refused", "Cross-origin request refused", 400),
    http.Unauthorized: ProblemType("unauthorized", "Key missing or wrong", 401, {"WWW-Authenticate": "Bearer"}),
    domain.UnknownModel: ProblemType("unknown-model", "No such model", 404),
    domain.UnknownFile: ProblemType("unknown-file", "No such file", 404),
    domain.UnknownVersion: ProblemType("unknown-version", "No such version is served", 404),
    http.FeedbackOff: ProblemType("feedback-off", "Labels are not kept", 404),
    http.UnknownAnswer: ProblemType("unknown-answer", "No such answer", 404),
    http.NotAcceptable: ProblemType("not-acceptable", "Accept cannot be served", 406),
    http.BodyTooLarge: ProblemType("body-too-large", "Request body too large", 413, setting="MAX_BODY_BYTES"),
    http.LabelTooLarge: ProblemType("body-too-large", "Request body too large", 413),
    http.TooManyFiles: ProblemType("too-many-files", "Too many files", 413, setting="MAX_FILES"),
    domain.TooManyPixels: ProblemType("too-many-pixels", "Image has too many pixels", 413, setting="MAX_PIXELS"),
    domain.TooMuchMemory: ProblemType("too-much-memory", "Too much memory needed", 413, setting="MAX_MEMORY"),
    http.UnsupportedMediaType: ProblemType("unsupported-media-type", "Body is neither an image nor multipart", 415),
    http.UnsupportedEncoding: ProblemType(
        "unsupported-content-encoding", "Content-Encoding not supported", 415, {"Accept-Encoding": "gzip, deflate"}
    ),
    http.MisdirectedRequest: ProblemType("misdirected-request", "Host not served", 421, setting="ALLOWED_HOSTS"),
    domain.UnreadableImage: ProblemType("unreadable-image", "Not a readable image", 422),
    domain.UnsupportedFalseAlarmRate: ProblemType(
        "unsupported-false-alarm-rate", "False-alarm rate not supported", 422
    ),
    http.InvalidParameter: ProblemType("invalid-parameter", "Invalid parameter", 422),
    http.InvalidLabel: ProblemType("invalid-label", "Label cannot be used", 422),
    domain.NonFiniteScore: ProblemType("non-finite-score", "The model gave no usable score", 422),
    domain.Overloaded: ProblemType("overloaded", "Queue full", 429, RETRY),
    domain.DecodingUnavailable: ProblemType("decoding-unavailable", "Images cannot be decoded now", 503, RETRY),
    domain.ModelUnavailable: ProblemType("model-unavailable", "Model not ready", 503, RETRY),
    domain.BundleRejected: ProblemType("model-unavailable", "Model not ready", 503, RETRY),
    domain.LabelNotKept: ProblemType("label-not-kept", "Label could not be kept", 503),
    http.ShuttingDown: ProblemType("shutting-down", "Shutting down", 503, RETRY),
    http.RequestTimedOut: ProblemType("timeout", "Request took too long", 504),
}

_log = structlog.get_logger(__name__)

_INTERNAL: Final = ProblemType("internal", "Internal error", 500)


def detail_of(error: Exception) -> str:
    """The text of an error in :data:`PROBLEM_TYPES`, with the setting that sets the limit if there is one."""
    setting = PROBLEM_TYPES[type(error)].setting
    return f"{error}; {PREFIX}{setting} sets this limit" if setting else str(error)


def describe(error: Exception) -> dict[str, Any]:
    """``type``, ``title``, ``status`` and ``detail`` of an error in :data:`PROBLEM_TYPES`."""
    problem = PROBLEM_TYPES[type(error)]
    return {"type": problem.type, "title": problem.title, "status": problem.status, "detail": detail_of(error)}


def document(
    request_id: str, problem: ProblemType, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """A problem document with optional extension members."""
    body = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "instance": request_id,
        **members,
    }
    return Response(orjson.dumps(body), problem.status, _headers(problem, headers), media_type=MEDIA_TYPE)


def _headers(problem: ProblemType, further: Mapping[str, str] | None) -> dict[str, str]:
    return {**(problem.headers or {}), **(further or {})}


def inference_status(problem: ProblemType) -> int:
    """The status under the other two protocols, which use 400 for every invalid request."""
    return HTTPStatus.BAD_REQUEST if problem.status == HTTPStatus.UNPROCESSABLE_ENTITY else problem.status


def response_for(request: Request, error: Exception) -> Response:
    """The response to an error in :data:`PROBLEM_TYPES`."""
    headers = {_RETRY_AFTER: str(error.retry_after_s)} if isinstance(error, domain.Overloaded) else None
    return _response(request, PROBLEM_TYPES[type(error)], detail_of(error), headers=headers)


def _response(
    request: Request, problem: ProblemType, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """An error response in the form that the request's route uses."""
    path: str = request.scope["path"]
    if lookout_errors.is_lookout(path):
        return lookout_errors.respond(inference_status(problem), detail, path, _headers(problem, headers))
    if not _INFERENCE_PATH.match(path):
        return document(request_state(request.scope).request_id, problem, detail, headers=headers, **members)
    return Response(
        orjson.dumps({"error": detail}),
        inference_status(problem),
        _headers(problem, headers),
        media_type="application/json",
    )


async def _on_error(request: Request, error: Exception) -> Response:
    return response_for(request, error)


async def _on_all_rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, http.AllRejected)  # noqa: S101  for the type checker
    first = error.rejected[0].reason
    files = [{"filename": each.filename, **describe(each.reason)} for each in error.rejected]
    return _response(request, PROBLEM_TYPES[type(first)], detail_of(first), errors=files)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    reasons = [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()]
    return _response(request, PROBLEM_TYPES[http.InvalidParameter], "; ".join(reasons))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    title = HTTPStatus(error.status_code).phrase
    problem = ProblemType(title.lower().replace(" ", "-"), title, error.status_code)
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"nothing found at {request.url.path}"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not allowed on {request.url.path}"
    return _response(request, problem, detail, headers=error.headers)


async def _on_disconnect(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=_CLIENT_CLOSED)


async def _on_internal_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return _response(request, _INTERNAL, "internal server error, see the log for this request id")


HANDLERS: Final[dict[Any, Any]] = {
    **dict.fromkeys(PROBLEM_TYPES, _on_error),
    http.AllRejected: _on_all_rejected,
    RequestValidationError: _on_invalid,
    HTTPException: _on_http_error,
    ClientDisconnect: _on_disconnect,
    Exception: _on_internal_error,
}
"""Exception class → handler, for FastAPI."""


async def respond(request: Request, error: Exception) -> Response:
    """The response to any exception of an endpoint outside FastAPI."""
    handled = next(each for each in type(error).__mro__ if each in HANDLERS)
    if handled is Exception:
        _log.exception("internal error", request_id=request_state(request.scope).request_id)
    response: Response = await HANDLERS[handled](request, error)
    return response
