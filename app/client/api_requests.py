"""Builds the request for every route of the service and parses its response. No I/O: the clients send the requests."""

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx

from app.client.errors import ClientError, ServiceUnreachable, UnexpectedAnswer, parse_problem, problem_class
from app.client.images import Upload
from app.client.responses import Health, ModelCard, Models, Overlay, ScoreAnswer, SideBySide

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_PNG: Final = "image/png"
_DEFAULT_FILENAME: Final = "image"  # the service does not count an empty part without a file name as a file
_PAGE_SIZE: Final = 200  # models
_EXCERPT_LENGTH: Final = 200  # characters of a response that is not the service's

_T = TypeVar("_T")
_Shown = TypeVar("_Shown", bound=SideBySide)


@dataclass(frozen=True)
class ScoringOptions:
    """Which model scores, and what decides the verdicts; ``None`` means the service's default.

    Attributes:
        model: name of a model in the store.
        false_alarm_rate: in (0, 1).
        threshold: in score units, instead of a false-alarm rate.

    Raises:
        ValueError: both a false-alarm rate and a threshold are given.
    """

    model: str | None = None
    false_alarm_rate: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.false_alarm_rate is not None and self.threshold is not None:
            raise ValueError("false_alarm_rate and threshold exclude each other; use one of them")


@dataclass(frozen=True)
class ApiRequest(Generic[_T]):
    """One request, and how to parse its response.

    Attributes:
        parse: converts a successful response into the result.
        success: statuses of a successful response.
        retryable: whether the request is sent again after a transient failure.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], _T]
    accept: str = _JSON
    query: Mapping[str, str] = field(default_factory=dict)
    uploads: tuple[Upload, ...] = ()
    json: Mapping[str, str] | None = None
    success: tuple[int, ...] = (200,)
    retryable: bool = True

    def build(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Builds the httpx request. The body is in memory, so it can be sent more than once."""
        request = http.build_request(
            self.method,
            self.path,
            params=self.query or None,
            headers={"Accept": self.accept},
            json=self.json,
            files=[("file", (upload.filename or _DEFAULT_FILENAME, upload.data)) for upload in self.uploads] or None,
        )
        request.read()  # joins the form's chunks, which httpx would otherwise write to the socket one by one
        return request

    def result(self, outcome: httpx.Response | httpx.RequestError) -> _T:
        """Parses the response.

        Raises:
            ServiceUnreachable: there was no response.
            Problem: the service responded with an error.
            UnexpectedAnswer: the response is not in the service's format.
        """
        if isinstance(outcome, httpx.DecodingError):
            raise UnexpectedAnswer(f"cannot decode the response of {_address(outcome.request)}: {outcome}") from outcome
        if isinstance(outcome, httpx.RequestError):
            raise ServiceUnreachable(f"no response from {_address(outcome.request)}: {_reason(outcome)}") from outcome
        if outcome.status_code not in self.success:
            raise self._error(outcome)
        try:
            return self.parse(outcome)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unexpected(outcome) from error

    def _error(self, response: httpx.Response) -> ClientError:
        if _media_type(response) == _PROBLEM:
            try:
                return parse_problem(response.json(), tuple(upload.filename for upload in self.uploads))
            except (KeyError, TypeError, ValueError, AttributeError):
                return _unexpected(response)
        if response.is_client_error or response.is_server_error:
            return _proxy_error(response)
        return _unexpected(response)


def score(
    uploads: tuple[Upload, ...], options: ScoringOptions, *, include: Iterable[str], fdr: float | None = None
) -> ApiRequest[ScoreAnswer]:
    """POST /score with a JSON response; with a false discovery rate, the images are decided together.

    Raises:
        ValueError: another rate or a threshold is given as well.
    """
    if fdr is not None and (options.false_alarm_rate is not None or options.threshold is not None):
        raise ValueError("fdr and false_alarm_rate or threshold exclude each other; use one of them")
    decided_together = {} if fdr is None else {"fdr": str(fdr)}
    filenames = tuple(upload.filename for upload in uploads)
    return ApiRequest(
        "POST",
        "/score",
        lambda response: ScoreAnswer.parse(filenames, response.json()),
        query={**_scoring_query(options), **decided_together, "include": ",".join(include)},
        uploads=uploads,
    )


def side_by_side(upload: Upload, options: ScoringOptions) -> ApiRequest[SideBySide]:
    """POST /score with a PNG response: input, reconstruction and error map."""
    return _picture(SideBySide, "strip", upload, options)


def overlay(upload: Upload, options: ScoringOptions) -> ApiRequest[Overlay]:
    """POST /score with a PNG response: the image with the error map over it."""
    return _picture(Overlay, "overlay", upload, options)


def label(answer_id: str, verdict: Literal["normal", "anomaly"], comment: str | None) -> ApiRequest[None]:
    """POST /feedback. The last label of an id counts, so sending the same one twice has no effect."""
    body = {"id": answer_id, "verdict": verdict, **({} if comment is None else {"comment": comment})}
    return ApiRequest("POST", "/feedback", lambda _: None, json=body, success=(200, 201))


def health() -> ApiRequest[Health]:
    """GET /health. A 503 holds the reason why the service is not ready, and is a successful response here."""
    return ApiRequest(
        "GET", "/health", lambda response: Health.parse(response.json()), success=(200, 503), retryable=False
    )


def models(after: str | None = None) -> ApiRequest[Models]:
    """GET /models: the page after the model named ``after``, or the first page."""
    query = {"limit": str(_PAGE_SIZE), **({} if after is None else {"after": after})}
    return ApiRequest("GET", "/models", lambda response: Models.parse(response.json()), query=query)


def model(name: str) -> ApiRequest[ModelCard]:
    """GET /models/{name}."""
    return ApiRequest("GET", f"/models/{quote(name, safe='')}", lambda response: ModelCard.parse(response.json()))


def _scoring_query(options: ScoringOptions) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(options).items() if value is not None}


def _picture(kind: type[_Shown], view: str, upload: Upload, options: ScoringOptions) -> ApiRequest[_Shown]:
    def parse(response: httpx.Response) -> _Shown:
        if _media_type(response) != _PNG:
            raise ValueError("the response is not a PNG image")
        return kind.parse(response.content, response.headers)

    query = {**_scoring_query(options), "view": view}
    return ApiRequest("POST", "/score", parse, accept=_PNG, query=query, uploads=(upload,))


def _media_type(response: httpx.Response) -> str:
    value: str = response.headers.get("Content-Type", "")
    return value.partition(";")[0].strip().lower()


def _proxy_error(response: httpx.Response) -> ClientError:
    """An error response that is not a problem document: it was sent by something between client and service."""
    status, title = response.status_code, response.reason_phrase or f"status {response.status_code}"
    detail = f"{_address(response.request)} responded {_excerpt(response)!r}"
    return problem_class("about:blank", status)("about:blank", title, status, detail, "")


def _unexpected(response: httpx.Response) -> UnexpectedAnswer:
    summary = f"status {response.status_code}, {_media_type(response) or 'no media type'}"
    redirect = f", redirect to {response.headers['Location']}" if "Location" in response.headers else ""
    return UnexpectedAnswer(f"unexpected response from {_address(response.request)} ({summary}{redirect})")


def _excerpt(response: httpx.Response) -> str:
    return " ".join(response.text.split())[:_EXCERPT_LENGTH]


def _address(request: httpx.Request) -> str:
    """The URL without the parts that may be secret or long."""
    return str(request.url.copy_with(query=None, userinfo=b""))


def _reason(error: httpx.RequestError) -> str:
    """The operating system's message if there is one, because httpx's own message is less specific."""
    if isinstance(error, httpx.TimeoutException):
        return f"timeout ({type(error).__name__})"
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and cause.errno:
            return str(cause.strerror if isinstance(cause, socket.gaierror) else os.strerror(cause.errno))
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split()) or type(error).__name__
