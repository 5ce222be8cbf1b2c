"""What a request itself can get wrong. ``app.api.problems`` maps each error to its status."""

from collections.abc import Sequence
from dataclasses import dataclass


class RequestError(Exception):
    """Base class; the text is one sentence for a person."""


class MalformedMultipart(RequestError):
    """The multipart body does not parse."""


class NoImage(RequestError):
    """The request carries no image."""


class Unauthorized(RequestError):
    """A key is required and missing, or wrong."""


class NotAcceptable(RequestError):
    """None of the media types in ``Accept`` can be served."""


class BodyTooLarge(RequestError):
    """The body exceeds the byte limit."""


class TooManyFiles(RequestError):
    """More files than one request may carry."""


class UnsupportedMediaType(RequestError):
    """The body is neither an image nor multipart."""


class InvalidParameter(RequestError):
    """A query parameter has an invalid value."""


class InvalidInference(RequestError):
    """A request of the Open Inference Protocol, or its tensor, is invalid."""


class FeedbackOff(RequestError):
    """Labels are not kept: no file is configured."""


class InvalidLabel(RequestError):
    """The body is not a valid label."""


class UnknownAnswer(RequestError):
    """A label names an answer id that this service has not issued."""


class RequestTimedOut(RequestError):
    """The request took longer than the request timeout."""


class ShuttingDown(RequestError):
    """The process was told to stop; another instance may take the request."""


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
