"""The two clients. All they add to ``app.client.calls`` is sending and waiting."""

import asyncio
import os
import time
from collections.abc import Iterable
from typing import Any, Final, Literal, Self, TypeVar

import httpx

from app import __version__
from app.client import calls
from app.client.answers import Health, ModelCard, Models, ScoreAnswer, SideBySide
from app.client.calls import Call
from app.client.pictures import Picture, read_pictures
from app.client.retrying import Attempts, Retry

DEFAULT_URL: Final = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S: Final = 60.0  # above the 30 s after which the service itself answers 504
KEY_VARIABLE: Final = "ANOMALY_API_KEY"

_CONNECT_S: Final = 10.0

_T = TypeVar("_T")


class AnomalyClient:
    """Scores pictures on a running service. Threads may share one; connections are kept and reused.

    Args:
        url: where the service is; a path in front of its routes is kept.
        api_key: sent with every request; default: the environment variable ``ANOMALY_API_KEY``, if it is set.
        timeout_s: longest silence of the service within one attempt.
        retry: how persistent to be where the service is busy, restarting or not reachable.
        transport: another way to send, for tests and for Unix sockets.

    Raises:
        ValueError: the URL is none of http or https.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry = Retry(),  # noqa: B008  frozen
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retry = retry
        self._http = httpx.Client(**_settings(url, api_key, timeout_s), transport=transport)

    def score(
        self,
        pictures: Picture | Iterable[Picture],
        *,
        model: str | None = None,
        false_alarm_rate: float | None = None,
        include: Iterable[str] = (),
    ) -> ScoreAnswer:
        """Scores one picture or many, in one request.

        Args:
            pictures: bytes, paths, binary files or Pillow images.
            model: a name in the store; default: the service's default model.
            false_alarm_rate: score at another sensitivity; default: the one calibrated into the model.
            include: pictures to send back, of ``input``, ``reconstruction`` and ``error_map``.

        Returns:
            One result per picture, in their order; a file that cannot be read is among them as ``RejectedImage``.

        Raises:
            AllRejected: not one of the pictures could be scored.
            TooLarge: too many pictures or bytes for one request.
            Problem: the service refused for another reason; a subclass where there is one.
            ServiceUnreachable: no answer, after all attempts.
            UnexpectedAnswer: the answer is not one of this service.
            OSError: a file cannot be read.
        """
        uploads = read_pictures(pictures)
        return self._do(calls.score(uploads, model=model, false_alarm_rate=false_alarm_rate, include=include))

    def side_by_side(
        self, picture: Picture, *, model: str | None = None, false_alarm_rate: float | None = None
    ) -> SideBySide:
        """Scores one picture and shows it: what the model saw, its reconstruction, the error map.

        Args:
            picture: bytes, path, binary file or Pillow image.
            model: as in ``score``.
            false_alarm_rate: as in ``score``.

        Raises:
            AllRejected: the picture could not be scored.
            ClientError, OSError: as in ``score``.
        """
        (upload,) = read_pictures(picture)
        return self._do(calls.side_by_side(upload, model=model, false_alarm_rate=false_alarm_rate))

    def label(self, id: str, verdict: Literal["normal", "anomaly"], *, comment: str | None = None) -> None:  # noqa: A002
        """Says what a scored picture really is, where the service keeps labels.

        Args:
            id: of the ``ScoredImage``.
            verdict: what it is.
            comment: for people who read the labels.

        Raises:
            Problem: the service keeps none, or has not given that id.
            ClientError: as in ``score``.
        """
        self._do(calls.label(id, verdict, comment))

    def health(self) -> Health:
        """The service as it is now, well or not; asked once, never again.

        Raises:
            ServiceUnreachable: no answer.
            UnexpectedAnswer: the answer is not one of this service.
        """
        return self._do(calls.health())

    def models(self) -> Models:
        """The cards of all models in the store.

        Raises:
            ClientError: as in ``score``.
        """
        found = self._do(calls.models())
        while found.next is not None:
            found = found.and_then(self._do(calls.models(found.next)))
        return found

    def model(self, name: str) -> ModelCard:
        """The card of one model.

        Raises:
            UnknownModel: the store has none of that name.
            ClientError: as in ``score``.
        """
        return self._do(calls.model(name))

    def close(self) -> None:
        """Lets the connections go."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, call: Call[_T]) -> _T:
        attempts = Attempts(self._retry)
        request = call.request(self._http)
        while True:
            outcome = self._send(request)
            pause = None if call.once else attempts.pause_after(outcome)
            if pause is None:
                return call.result(outcome)
            time.sleep(pause)

    def _send(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return self._http.send(request)
        except httpx.RequestError as error:
            return error


class AsyncAnomalyClient:
    """``AnomalyClient`` for asyncio: the same arguments, methods, results and exceptions, awaited."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry = Retry(),  # noqa: B008  frozen
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retry = retry
        self._http = httpx.AsyncClient(**_settings(url, api_key, timeout_s), transport=transport)

    async def score(
        self,
        pictures: Picture | Iterable[Picture],
        *,
        model: str | None = None,
        false_alarm_rate: float | None = None,
        include: Iterable[str] = (),
    ) -> ScoreAnswer:
        """As ``AnomalyClient.score``; files are read in a thread."""
        uploads = await asyncio.to_thread(read_pictures, pictures)
        return await self._do(calls.score(uploads, model=model, false_alarm_rate=false_alarm_rate, include=include))

    async def side_by_side(
        self, picture: Picture, *, model: str | None = None, false_alarm_rate: float | None = None
    ) -> SideBySide:
        """As ``AnomalyClient.side_by_side``."""
        (upload,) = await asyncio.to_thread(read_pictures, picture)
        return await self._do(calls.side_by_side(upload, model=model, false_alarm_rate=false_alarm_rate))

    async def label(self, id: str, verdict: Literal["normal", "anomaly"], *, comment: str | None = None) -> None:  # noqa: A002
        """As ``AnomalyClient.label``."""
        await self._do(calls.label(id, verdict, comment))

    async def health(self) -> Health:
        """As ``AnomalyClient.health``."""
        return await self._do(calls.health())

    async def models(self) -> Models:
        """As ``AnomalyClient.models``."""
        found = await self._do(calls.models())
        while found.next is not None:
            found = found.and_then(await self._do(calls.models(found.next)))
        return found

    async def model(self, name: str) -> ModelCard:
        """As ``AnomalyClient.model``."""
        return await self._do(calls.model(name))

    async def aclose(self) -> None:
        """Lets the connections go."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _do(self, call: Call[_T]) -> _T:
        attempts = Attempts(self._retry)
        request = call.request(self._http)
        while True:
            outcome = await self._send(request)
            pause = None if call.once else attempts.pause_after(outcome)
            if pause is None:
                return call.result(outcome)
            await asyncio.sleep(pause)

    async def _send(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.send(request)
        except httpx.RequestError as error:
            return error


def check_url(url: str) -> httpx.URL:
    """Where a service may be.

    Raises:
        ValueError: it is none of http or https.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"{url!r} is no http:// or https:// URL")
    return parsed


def _settings(url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """What both kinds of httpx client are made with."""
    key = (os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key).strip()
    headers = {"User-Agent": f"anomaly-client/{__version__}", **({"Authorization": f"Bearer {key}"} if key else {})}
    return {
        "base_url": check_url(url),
        "headers": httpx.Headers(headers, encoding="utf-8"),  # the service compares keys as UTF-8
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
        # Whoever runs many requests at a time bounds them himself; to wait here would look like a slow service.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=64),
    }
