"""The synchronous and the asynchronous client: they send the requests of ``app.client.api_requests`` and retry."""

import asyncio
import os
import time
from collections.abc import Iterable
from typing import Any, Final, Literal, Self, TypeVar

import httpx

from app import __version__
from app.client import api_requests
from app.client.api_requests import ApiRequest, ScoringOptions
from app.client.images import ImageInput, read_images
from app.client.responses import Health, ModelCard, Models, Overlay, ScoreAnswer, SideBySide
from app.client.retry import Attempts, Retry

DEFAULT_URL: Final = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S: Final = 60.0  # above the 30 s after which the service responds with 504 by default
API_KEY_VARIABLE: Final = "ANOMALY_API_KEY"

_CONNECT_TIMEOUT_S: Final = 10.0

_T = TypeVar("_T")


class AnomalyClient:
    """Scores images on a running service. Thread-safe; connections are reused.

    Args:
        url: base URL of the service; may include a path prefix.
        api_key: sent with every request; default: the environment variable ``ANOMALY_API_KEY``, if it is set.
        timeout_s: longest time without data from the service in one attempt, in seconds.
        retry: when to retry if the service is busy, restarting or unreachable.
        transport: httpx transport to use instead of TCP, for tests and Unix sockets.

    Raises:
        ValueError: the URL is not a valid http or https URL.
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
        self._http = httpx.Client(**_http_options(url, api_key, timeout_s), transport=transport)

    def score(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        model: str | None = None,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        fdr: float | None = None,
        include: Iterable[str] = (),
    ) -> ScoreAnswer:
        """Scores one image or many in one request.

        Args:
            images: bytes, paths, binary files or Pillow images.
            model: name of a model in the store; default: the service's default model.
            false_alarm_rate: target false-alarm rate in (0, 1); default: the one that the model was calibrated for.
            threshold: in score units, instead of a false-alarm rate; the answer then promises no rate.
            fdr: false discovery rate in (0, 1), instead of both: the images are decided together, so that on average
                at most this share of those called anomalies is normal.
            include: images to return, any of ``input``, ``reconstruction`` and ``error_map``.

        Returns:
            One result per image, in order; a file that could not be scored is a ``RejectedImage``.

        Raises:
            AllRejected: no image could be scored.
            TooLarge: too many images or bytes for one request.
            Problem: the service responded with another error; a subclass if there is one for it.
            ServiceUnreachable: no response after all attempts.
            UnexpectedAnswer: the response is not in the service's format.
            OSError: a local file cannot be read.
            TypeError: an item is not a supported form of image.
            ValueError: ``images`` is empty, or more than one of rate, threshold and fdr is given.
        """
        uploads = read_images(images)
        return self._execute(
            api_requests.score(uploads, ScoringOptions(model, false_alarm_rate, threshold), include=include, fdr=fdr)
        )

    def side_by_side(
        self,
        image: ImageInput,
        *,
        model: str | None = None,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
    ) -> SideBySide:
        """Scores one image and returns a PNG strip of the model's input, the reconstruction and the error map.

        Args:
            image: bytes, path, binary file or Pillow image.
            model: as in ``score``.
            false_alarm_rate: as in ``score``.
            threshold: as in ``score``.

        Raises:
            AllRejected: the image could not be scored.
            ClientError, OSError, TypeError, ValueError: as in ``score``.
        """
        (upload,) = read_images(image)
        return self._execute(api_requests.side_by_side(upload, ScoringOptions(model, false_alarm_rate, threshold)))

    def overlay(
        self,
        image: ImageInput,
        *,
        model: str | None = None,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
    ) -> Overlay:
        """Scores one image and returns a PNG of it in its own proportions, with the error map and boxes over it.

        Args and errors are those of ``side_by_side``.
        """
        (upload,) = read_images(image)
        return self._execute(api_requests.overlay(upload, ScoringOptions(model, false_alarm_rate, threshold)))

    def label(self, id: str, verdict: Literal["normal", "anomaly"], *, comment: str | None = None) -> None:  # noqa: A002
        """Labels a scored image with its true class, if the service stores labels.

        Args:
            id: the ``id`` of the ``ScoredImage``.
            verdict: the label.
            comment: free text, stored with the label.

        Raises:
            Problem: the service does not store labels, or the id is unknown.
            ClientError: as in ``score``.
        """
        self._execute(api_requests.label(id, verdict, comment))

    def health(self) -> Health:
        """Returns the state of the service, also if it is not ready. Never retried.

        Raises:
            ServiceUnreachable: no response.
            UnexpectedAnswer: the response is not in the service's format.
        """
        return self._execute(api_requests.health())

    def models(self) -> Models:
        """Returns the cards of all models in the store.

        Raises:
            ClientError: as in ``score``.
        """
        models = self._execute(api_requests.models())
        while models.next is not None:
            models = models.with_page(self._execute(api_requests.models(models.next)))
        return models

    def model(self, name: str) -> ModelCard:
        """Returns the card of one model.

        Raises:
            UnknownModel: the store has no model with this name.
            ClientError: as in ``score``.
        """
        return self._execute(api_requests.model(name))

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _execute(self, api_request: ApiRequest[_T]) -> _T:
        attempts = Attempts(self._retry)
        request = api_request.build(self._http)
        while True:
            outcome = self._send(request)
            delay = attempts.delay_after(outcome) if api_request.retryable else None
            if delay is None:
                return api_request.result(outcome)
            time.sleep(delay)

    def _send(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return self._http.send(request)
        except httpx.RequestError as error:
            return error


class AsyncAnomalyClient:
    """``AnomalyClient`` for asyncio: the same arguments, results and exceptions; the methods are coroutines."""

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
        self._http = httpx.AsyncClient(**_http_options(url, api_key, timeout_s), transport=transport)

    async def score(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        model: str | None = None,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        fdr: float | None = None,
        include: Iterable[str] = (),
    ) -> ScoreAnswer:
        """As ``AnomalyClient.score``; files are read in a worker thread."""
        uploads = await asyncio.to_thread(read_images, images)
        return await self._execute(
            api_requests.score(uploads, ScoringOptions(model, false_alarm_rate, threshold), include=include, fdr=fdr)
        )

    async def side_by_side(
        self,
        image: ImageInput,
        *,
        model: str | None = None,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
    ) -> SideBySide:
        """As ``AnomalyClient.side_by_side``."""
        (upload,) = await asyncio.to_thread(read_images, image)
        return await self._execute(
            api_requests.side_by_side(upload, ScoringOptions(model, false_alarm_rate, threshold))
        )

    async def overlay(
        self,
        image: ImageInput,
        *,
        model: str | None = None,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
    ) -> Overlay:
        """As ``AnomalyClient.overlay``."""
        (upload,) = await asyncio.to_thread(read_images, image)
        return await self._execute(api_requests.overlay(upload, ScoringOptions(model, false_alarm_rate, threshold)))

    async def label(self, id: str, verdict: Literal["normal", "anomaly"], *, comment: str | None = None) -> None:  # noqa: A002
        """As ``AnomalyClient.label``."""
        await self._execute(api_requests.label(id, verdict, comment))

    async def health(self) -> Health:
        """As ``AnomalyClient.health``."""
        return await self._execute(api_requests.health())

    async def models(self) -> Models:
        """As ``AnomalyClient.models``."""
        models = await self._execute(api_requests.models())
        while models.next is not None:
            models = models.with_page(await self._execute(api_requests.models(models.next)))
        return models

    async def model(self, name: str) -> ModelCard:
        """As ``AnomalyClient.model``."""
        return await self._execute(api_requests.model(name))

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _execute(self, api_request: ApiRequest[_T]) -> _T:
        attempts = Attempts(self._retry)
        request = api_request.build(self._http)
        while True:
            outcome = await self._send(request)
            delay = attempts.delay_after(outcome) if api_request.retryable else None
            if delay is None:
                return api_request.result(outcome)
            await asyncio.sleep(delay)

    async def _send(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.send(request)
        except httpx.RequestError as error:
            return error


def check_url(url: str) -> httpx.URL:
    """Parses the URL of a service.

    Raises:
        ValueError: it is not a valid http or https URL.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is not a valid URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"{url!r} is not an http:// or https:// URL")
    return parsed


def _http_options(url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Arguments of both httpx clients."""
    key = (os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key).strip()
    headers = {"User-Agent": f"anomaly-client/{__version__}", **({"Authorization": f"Bearer {key}"} if key else {})}
    return {
        "base_url": check_url(url),
        "headers": httpx.Headers(headers, encoding="utf-8"),  # the service compares keys as UTF-8
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S)),
        # Callers bound their concurrency; waiting for a free connection would look like a slow service.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=64),
    }
