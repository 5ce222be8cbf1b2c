"""Retry policy, without I/O: whether a request is sent again and after which delay. Both clients use it."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

_RETRYABLE_STATUSES: Final = {429, 502, 503}  # queue full; proxy in front of a restarting service; not ready
_PERMANENT_ERRORS: Final = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.DecodingError)


@dataclass(frozen=True)
class Retry:
    """Retry settings. The requests of this client are idempotent, so sending one again is safe.

    Attributes:
        retries: attempts after the first; 0 disables retries.
        total_s: no attempt starts later than this many seconds after the first.
        first_s: upper limit of the first backoff delay in seconds; the limit doubles with every further attempt.
        longest_s: upper limit of the backoff delay in seconds; a ``Retry-After`` is waited for in addition.
    """

    retries: int = 4
    total_s: float = 120
    first_s: float = 0.25
    longest_s: float = 15

    def __post_init__(self) -> None:
        if self.retries < 0 or min(self.total_s, self.first_s, self.longest_s) < 0:
            raise ValueError(f"negative value in {self}")


class Attempts:
    """Counts the attempts of one request and decides after each whether to retry."""

    def __init__(
        self, retry: Retry, *, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._retry = retry
        self._clock = clock
        self._jitter = jitter
        self._started = clock()
        self._made = 0

    def delay_after(self, outcome: httpx.Response | httpx.RequestError) -> float | None:
        """Returns the seconds until the next attempt, or ``None`` if the outcome is final."""
        self._made += 1
        if self._made > self._retry.retries or not _is_transient(outcome):
            return None
        delay = self._backoff()
        if isinstance(outcome, httpx.Response):
            # Retry-After is a lower limit; the jitter on top spreads clients that were refused at the same time.
            delay += retry_after(outcome.headers) or 0
        return delay if self._clock() - self._started + delay <= self._retry.total_s else None

    def _backoff(self) -> float:
        """Exponential backoff with jitter: between half of the current limit and the limit."""
        limit: float = min(self._retry.first_s * 2 ** (self._made - 1), self._retry.longest_s)
        return limit * (1 + self._jitter()) / 2


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Parses ``Retry-After``, seconds or an HTTP date, into seconds; ``None`` if it is missing or malformed."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    # The Date header is the sender's clock, which may differ from the local one.
    now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _is_transient(outcome: httpx.Response | httpx.RequestError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in _RETRYABLE_STATUSES
    return not isinstance(outcome, _PERMANENT_ERRORS)
