"""The service's routes as requests to build and answers to parse. No I/O: both clients send what stands here."""

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx

from app.client.answers import Health, ModelCard, Models, ScoreAnswer, SideBySide
from app.client.errors import ClientError, ServiceUnreachable, UnexpectedAnswer, kind, parse_problem
from app.client.pictures import Upload

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_PNG: Final = "image/png"
_NAMELESS: Final = "picture"  # a part that is empty and nameless would count as no file at all
_PAGE: Final = 200  # models
_SHOWN: Final = 200  # characters of a foreign answer

_T = TypeVar("_T")


@dataclass(frozen=True)
class Call(Generic[_T]):
    """One request, and what its answer means.

    Attributes:
        parse: makes the result of an answer that is no refusal.
        answers: statuses that are answers too, though not 200.
        once: never sent again.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], _T]
    accept: str = _JSON
    query: Mapping[str, str] = field(default_factory=dict)
    uploads: tuple[Upload, ...] = ()
    json: Mapping[str, str] | None = None
    answers: tuple[int, ...] = ()
    once: bool = False

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request, complete and in memory: it can be sent as often as need be."""
        request = http.build_request(
            self.method,
            self.path,
            params=self.query or None,
            headers={"Accept": self.accept},
            json=self.json,
            files=[("file", (upload.filename or _NAMELESS, upload.data)) for upload in self.uploads] or None,
        )
        request.read()  # joins the form's pieces, which would each be a packet of their own
        return request

    def result(self, outcome: httpx.Response | httpx.RequestError) -> _T:
        """What the answer holds.

        Raises:
            ServiceUnreachable: none came.
            Problem: the service refused.
            UnexpectedAnswer: it is not one of this service.
        """
        if isinstance(outcome, httpx.DecodingError):
            raise UnexpectedAnswer(f"{_place(outcome.request)} sent what cannot be decoded: {outcome}") from outcome
        if isinstance(outcome, httpx.RequestError):
            raise ServiceUnreachable(f"no answer from {_place(outcome.request)}: {_reason(outcome)}") from outcome
        if outcome.status_code != httpx.codes.OK and outcome.status_code not in self.answers:
            raise self._refusal(outcome)
        try:
            return self.parse(outcome)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unexpected(outcome) from error

    def _refusal(self, response: httpx.Response) -> ClientError:
        if _media_type(response) == _PROBLEM:
            try:
                return parse_problem(response.json(), tuple(upload.filename for upload in self.uploads))
            except (KeyError, TypeError, ValueError, AttributeError):
                return _unexpected(response)
        if response.is_client_error or response.is_server_error:  # of something between us and the service
            status, title = response.status_code, response.reason_phrase or f"status {response.status_code}"
            detail = f"{_place(response.request)} says {_excerpt(response)!r}"
            return kind("about:blank", status)("about:blank", title, status, detail, "")
        return _unexpected(response)


def score(
    uploads: tuple[Upload, ...], *, model: str | None, false_alarm_rate: float | None, include: Iterable[str]
) -> Call[ScoreAnswer]:
    """POST /score, for numbers."""
    filenames = tuple(upload.filename for upload in uploads)
    return Call(
        "POST",
        "/score",
        lambda response: ScoreAnswer.parse(filenames, response.json()),
        query={**_choice(model, false_alarm_rate), "include": ",".join(include)},
        uploads=uploads,
    )


def side_by_side(upload: Upload, *, model: str | None, false_alarm_rate: float | None) -> Call[SideBySide]:
    """POST /score, for a picture."""
    return Call("POST", "/score", _picture, accept=_PNG, query=_choice(model, false_alarm_rate), uploads=(upload,))


def label(answer_id: str, verdict: Literal["normal", "anomaly"], comment: str | None) -> Call[None]:
    """POST /feedback. The last label counts, so that sending one twice does no harm."""
    said = {"id": answer_id, "verdict": verdict, **({} if comment is None else {"comment": comment})}
    return Call("POST", "/feedback", lambda _: None, json=said, answers=(201,))


def health() -> Call[Health]:
    """GET /health. That it is not well is an answer, not a failure."""
    return Call("GET", "/health", lambda response: Health.parse(response.json()), answers=(503,), once=True)


def models(after: str | None = None) -> Call[Models]:
    """GET /models, the page behind that name or the first."""
    query = {"limit": str(_PAGE), **({} if after is None else {"after": after})}
    return Call("GET", "/models", lambda response: Models.parse(response.json()), query=query)


def model(name: str) -> Call[ModelCard]:
    """GET /models/{name}."""
    return Call("GET", f"/models/{quote(name, safe='')}", lambda response: ModelCard.parse(response.json()))


def _choice(model: str | None, false_alarm_rate: float | None) -> dict[str, str]:
    query: dict[str, Any] = {"model": model, "false_alarm_rate": false_alarm_rate}
    return {name: str(value) for name, value in query.items() if value is not None}


def _picture(response: httpx.Response) -> SideBySide:
    if _media_type(response) != _PNG:
        raise ValueError("the answer is no picture")
    return SideBySide.parse(response.content, response.headers)


def _media_type(response: httpx.Response) -> str:
    value: str = response.headers.get("Content-Type", "")
    return value.partition(";")[0].strip().lower()


def _unexpected(response: httpx.Response) -> UnexpectedAnswer:
    seen = f"status {response.status_code}, {_media_type(response) or 'no media type'}"
    moved = f", to {response.headers['Location']}" if "Location" in response.headers else ""
    return UnexpectedAnswer(f"{_place(response.request)} does not answer as this service does ({seen}{moved})")


def _excerpt(response: httpx.Response) -> str:
    return " ".join(response.text.split())[:_SHOWN]


def _place(request: httpx.Request) -> str:
    return str(request.url.copy_with(query=None, userinfo=b""))


def _reason(error: httpx.RequestError) -> str:
    """What happened, in the system's own words where it has some: they say more than the library's."""
    if isinstance(error, httpx.TimeoutException):
        return f"it took too long ({type(error).__name__})"
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and cause.errno:
            return str(cause.strerror if isinstance(cause, socket.gaierror) else os.strerror(cause.errno))
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split()) or type(error).__name__
