"""Refusals that belong to HTTP rather than to scoring. ``app.api.problems`` gives them their status."""

from collections.abc import Sequence
from dataclasses import dataclass


class RequestError(Exception):
    """Base of everything a request itself can get wrong; its text is one sentence for a person."""


class MalformedMultipart(RequestError):
    """The multipart body does not parse."""


class NoImage(RequestError):
    """The request carries no image."""


class Unauthorized(RequestError):
    """A key is required and missing, or wrong."""


class NotAcceptable(RequestError):
    """None of the media types that ``Accept`` names can be served."""


class BodyTooLarge(RequestError):
    """The body exceeds the byte limit."""


class TooManyFiles(RequestError):
    """More files than one request may carry."""


class UnsupportedMediaType(RequestError):
    """The body is neither an image nor multipart."""


class InvalidParameter(RequestError):
    """A query parameter has a value that makes no sense."""


class InvalidInference(RequestError):
    """A request of the Open Inference Protocol, or a tensor of it, cannot be used."""


class FeedbackOff(RequestError):
    """The service was not told where to keep labels."""


class InvalidLabel(RequestError):
    """The body is no label."""


class UnknownAnswer(RequestError):
    """No answer of this service has the id that a label names."""


class RequestTimedOut(RequestError):
    """The request took longer than the request timeout."""


class ShuttingDown(RequestError):
    """The process has been told to end; another one may take the request."""


@dataclass(frozen=True)
class Rejection:
    """One uploaded file that was not scored."""

    filename: str | None
    reason: Exception


class AllRejected(RequestError):
    """Not one of the uploaded files could be scored."""

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        super().__init__(str(rejections[0].reason))
        self.rejections = rejections
