"""Errors in the form of Amazon Lookout for Vision: an exception's name in a header, ``Message`` in the body."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response

ERROR_HEADER: Final = "x-amzn-ErrorType"

_PATH: Final = re.compile(r"/2020-11-20(?:/projects(?:/([^/]*)(?:/models(?:/([^/]*))?)?)?)?(?:/|$)")
_NAMES: Final = {
    HTTPStatus.UNAUTHORIZED: "AccessDeniedException",
    HTTPStatus.NOT_FOUND: "ResourceNotFoundException",
    HTTPStatus.CONFLICT: "ConflictException",
    HTTPStatus.TOO_MANY_REQUESTS: "ThrottlingException",
}
_SERVER_ERROR: Final = 500


def is_lookout(path: str) -> bool:
    """Whether a path belongs to this API."""
    return _PATH.match(path) is not None


def name_of(status: int) -> str:
    """The exception that a client raises for a status."""
    default = "InternalServerException" if status >= _SERVER_ERROR else "ValidationException"
    return _NAMES.get(HTTPStatus(status), default)


def body_of(status: int, detail: str, path: str) -> dict[str, Any]:
    """The body of an error; if something was not found, with what and of what type."""
    if status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
        return {"Message": detail}
    match = _PATH.match(path)
    project, version = match.groups() if match else (None, None)
    kind, name = ("MODEL", f"{project}/{version}") if version else ("PROJECT", project or "")
    return {"Message": detail, "ResourceId": name, "ResourceType": kind}


def respond(status: int, detail: str, path: str, headers: Mapping[str, str]) -> Response:
    """An error response."""
    return Response(
        orjson.dumps(body_of(status, detail, path)),
        status,
        {**headers, ERROR_HEADER: name_of(status)},
        media_type="application/json",
    )
