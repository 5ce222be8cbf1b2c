"""When to send a request again, and how long to wait before. No I/O: both clients ask here."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

_RETRIED_STATUSES: Final = {429, 502, 503}  # full queue, a proxy whose service restarts, not ready
_HOPELESS: Final = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.DecodingError)


@dataclass(frozen=True)
class Retry:
    """How persistent a client is. Scoring changes nothing, so sending it again is always safe.

    Attributes:
        retries: further attempts after the first; 0: none.
        total_s: no attempt begins later than this after the first.
        first_s: about the first pause; each further one is twice as long.
        longest_s: the longest pause that is not the service's wish.
    """

    retries: int = 4
    total_s: float = 120
    first_s: float = 0.25
    longest_s: float = 15

    def __post_init__(self) -> None:
        if self.retries < 0 or min(self.total_s, self.first_s, self.longest_s) < 0:
            raise ValueError(f"no part of {self} may be negative")


class Attempts:
    """The attempts of one request: counts them, and decides after each what comes next."""

    def __init__(
        self, retry: Retry, *, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._retry = retry
        self._clock = clock
        self._chance = chance
        self._began = clock()
        self._made = 0

    def pause_after(self, outcome: httpx.Response | httpx.RequestError) -> float | None:
        """Seconds to wait before the next attempt; ``None``: this outcome is final."""
        self._made += 1
        if self._made > self._retry.retries or not _may_pass(outcome):
            return None
        pause = self._backoff()
        if isinstance(outcome, httpx.Response):
            # The service's wish is a lower limit; the jitter on top keeps its clients from coming all at once.
            pause += retry_after(outcome.headers) or 0
        return pause if self._clock() - self._began + pause <= self._retry.total_s else None

    def _backoff(self) -> float:
        """Doubles with every attempt; the actual pause lies between half of it and the whole."""
        longest: float = min(self._retry.first_s * 2 ** (self._made - 1), self._retry.longest_s)
        return longest * (1 + self._chance()) / 2


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``Retry-After`` asks for, given as such or as an HTTP date; ``None`` if it is not there or odd."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    # Against the sender's own clock, where it tells: ours may differ.
    now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _may_pass(outcome: httpx.Response | httpx.RequestError) -> bool:
    """Whether the same request may fare better a little later."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in _RETRIED_STATUSES
    return not isinstance(outcome, _HOPELESS)
