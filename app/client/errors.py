"""Exceptions of the client; every message is one line."""

from collections.abc import Mapping
from typing import Any, Final

from app.client.responses import Refusal, RejectedImage


class ClientError(Exception):
    """Base class of all exceptions that this package defines."""


class ServiceUnreachable(ClientError):
    """No response: connection refused, connection lost, or timeout."""


class UnexpectedAnswer(ClientError):
    """The response is not in the service's format; most often the URL belongs to another program."""


class Problem(ClientError):
    """The service responded with an error (RFC 9457).

    Attributes:
        type: stable URI of the problem type.
        title: short description of the problem type.
        status: the HTTP status.
        detail: description of this occurrence, in one sentence.
        instance: the request id, as in the service's log.
    """

    def __init__(self, type: str, title: str, status: int, detail: str, instance: str) -> None:  # noqa: A002  RFC 9457
        super().__init__(f"{title}: {detail}" if detail else title)
        self.type = type
        self.title = title
        self.status = status
        self.detail = detail
        self.instance = instance


class Unauthorized(Problem):
    """The API key is missing or wrong."""


class UnknownModel(Problem):
    """The store has no model with this name."""


class TooLarge(Problem):
    """Too many bytes or too many files for one request."""


class Overloaded(Problem):
    """The queue was full at every attempt."""


class Unavailable(Problem):
    """The service or the model was not ready at every attempt."""


class AllRejected(Problem):
    """No image could be scored; ``rejected`` holds the reasons, in the order of the images."""

    rejected: tuple[RejectedImage, ...] = ()


_BY_TYPE: Final[Mapping[str, type[Problem]]] = {"urn:problem-type:unknown-model": UnknownModel}
_BY_STATUS: Final[Mapping[int, type[Problem]]] = {
    401: Unauthorized,
    413: TooLarge,
    429: Overloaded,
    503: Unavailable,
}


def parse_problem(document: Mapping[str, Any], filenames: tuple[str | None, ...]) -> Problem:
    """Returns the exception for a problem document; ``filenames`` are the names of the uploaded images, in order."""
    status = int(document["status"])
    members = (document["type"], document["title"], status, document["detail"], document["instance"])
    rejections = document.get("errors")
    if rejections:
        problem = AllRejected(*members)
        problem.rejected = tuple(
            RejectedImage(filename, Refusal.parse(rejection))
            for filename, rejection in zip(filenames, rejections, strict=True)
        )
        return problem
    return problem_class(document["type"], status)(*members)


def problem_class(problem_type: str, status: int) -> type[Problem]:
    """Returns the exception class for a problem type and an HTTP status."""
    return _BY_TYPE.get(problem_type) or _BY_STATUS.get(status, Problem)
