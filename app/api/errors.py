"""Errors in requests. ``app.api.problems`` maps each to its status."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError


class RequestError(Exception):
    """Base class. The text is one sentence for the client."""


class MalformedMultipart(RequestError):
    """The multipart body does not parse."""


class MalformedJson(RequestError):
    """The JSON body does not parse, or does not have the documented form."""


class MalformedEncoding(RequestError):
    """The body cannot be decompressed."""


class NoImage(RequestError):
    """The request carries no image."""


class Unauthorized(RequestError):
    """A key is required and missing, or wrong."""


class InvalidHost(RequestError):
    """The request has no valid ``Host`` header, or several."""


class MisdirectedRequest(RequestError):
    """The request is for a host that is not served here."""


class OriginRefused(RequestError):
    """A page of another origin may not send the request that it announced."""


class NotAcceptable(RequestError):
    """None of the media types in ``Accept`` can be served."""


class BodyTooLarge(RequestError):
    """The body exceeds the byte limit."""


class LabelTooLarge(RequestError):
    """The body of a label exceeds its byte limit, which no setting changes."""


class TooManyFiles(RequestError):
    """More files than one request may carry."""


class UnsupportedMediaType(RequestError):
    """The body is neither an image nor multipart nor JSON."""


class UnsupportedEncoding(RequestError):
    """The body is compressed in a way that is not supported."""


class InvalidParameter(RequestError):
    """A query parameter has an invalid value."""


class InvalidInference(RequestError):
    """A request of the Open Inference Protocol, or its tensor, is invalid."""


class FeedbackOff(RequestError):
    """Labels are not kept, since no label file is configured."""


class InvalidLabel(RequestError):
    """The body is not a valid label."""


class UnknownAnswer(RequestError):
    """A label names an answer id that this service has not issued."""


class RequestTimedOut(RequestError):
    """The request took longer than the request timeout."""


class ShuttingDown(RequestError):
    """The process is shutting down. Another instance may accept the request."""


@dataclass(frozen=True)
class RejectedFile:
    """An uploaded file that could not be scored."""

    filename: str | None
    reason: Exception


class AllRejected(RequestError):
    """None of the uploaded files could be scored."""

    def __init__(self, rejected: Sequence[RejectedFile]) -> None:
        super().__init__(str(rejected[0].reason))
        self.rejected = rejected


def validation_reasons(error: ValidationError, whole: str) -> list[str]:
    """``field: reason`` for each error that Pydantic found.

    Args:
        error: from validating a body or a query.
        whole: names the input where the error is not in one field.
    """
    return [
        f"{'.'.join(map(str, each['loc'])) or whole}: {each['msg'].removeprefix('Value error, ')}"
        for each in error.errors(include_url=False, include_input=False)
    ]
