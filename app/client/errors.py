"""What can go wrong between a caller and the service; every text is one line for a person."""

from collections.abc import Mapping
from typing import Any, Final

from app.client.answers import Refusal, RejectedImage


class ClientError(Exception):
    """Base of everything this package raises of its own."""


class ServiceUnreachable(ClientError):
    """No answer came: nobody listens there, the connection broke, or it took too long."""


class UnexpectedAnswer(ClientError):
    """Something answered, but not as the service does; most often the URL is another program's."""


class Problem(ClientError):
    """The service refused the request.

    Attributes:
        type: stable identifier of the sort of problem, a URI.
        title: what sort of problem it is.
        status: the HTTP status.
        detail: this occurrence, in one sentence.
        instance: the request's id, as in the service's log.
    """

    def __init__(self, type: str, title: str, status: int, detail: str, instance: str) -> None:  # noqa: A002  RFC 9457
        super().__init__(f"{title}: {detail}" if detail else title)
        self.type = type
        self.title = title
        self.status = status
        self.detail = detail
        self.instance = instance


class Unauthorized(Problem):
    """A key is required and missing, or wrong."""


class UnknownModel(Problem):
    """The store has no model of that name."""


class TooLarge(Problem):
    """Too many bytes or too many files for one request."""


class Overloaded(Problem):
    """The queue was full, at every attempt."""


class Unavailable(Problem):
    """The service or the model was not ready, at every attempt."""


class AllRejected(Problem):
    """Not one of the pictures could be scored; ``rejected`` says why, in their order."""

    rejected: tuple[RejectedImage, ...] = ()


_BY_TYPE: Final[Mapping[str, type[Problem]]] = {"urn:problem-type:unknown-model": UnknownModel}
_BY_STATUS: Final[Mapping[int, type[Problem]]] = {
    401: Unauthorized,
    413: TooLarge,
    429: Overloaded,
    503: Unavailable,
}


def parse_problem(document: Mapping[str, Any], filenames: tuple[str | None, ...]) -> Problem:
    """The exception of a problem document; ``filenames`` are those of the pictures that were sent."""
    status = int(document["status"])
    members = (document["type"], document["title"], status, document["detail"], document["instance"])
    rejections = document.get("errors")
    if rejections:
        problem = AllRejected(*members)
        problem.rejected = tuple(
            RejectedImage(filename, Refusal.parse(each)) for filename, each in zip(filenames, rejections, strict=True)
        )
        return problem
    return kind(document["type"], status)(*members)


def kind(problem_type: str, status: int) -> type[Problem]:
    """The class of a refusal."""
    return _BY_TYPE.get(problem_type) or _BY_STATUS.get(status, Problem)
