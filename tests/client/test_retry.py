"""Retry policy: decisions without I/O, then delays measured against a failing server."""

import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from app.client import Overloaded, Problem, Retry, ServiceUnreachable, Unavailable
from app.client.retry import Attempts, retry_after
from tests.client.conftest import BusyServer, Connect, Failure, http_date
from tests.support import encode, gradient

PNG = encode(gradient())


def response(status: int = 429, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


class TestDecisions:
    def test_backoff_doubles_up_to_a_limit_with_jitter(self) -> None:
        retry = Retry(retries=6, first_s=1, longest_s=10, total_s=1000)
        for jitter, share in ((0.0, 0.5), (1.0, 1.0)):
            attempts = Attempts(retry, clock=lambda: 0.0, jitter=lambda jitter=jitter: jitter)  # type: ignore[misc]
            delays = [attempts.delay_after(response()) for _ in range(7)]
            assert delays == [share * limit for limit in (1, 2, 4, 8, 10, 10)] + [None]

    def test_no_retries(self) -> None:
        assert Attempts(Retry(retries=0)).delay_after(response()) is None

    def test_total_time_is_limited(self) -> None:
        now = 0.0
        attempts = Attempts(Retry(retries=99, first_s=1, total_s=10), clock=lambda: now, jitter=lambda: 1.0)
        assert attempts.delay_after(response()) == 1
        now = 8
        assert attempts.delay_after(response()) == 2
        now = 10
        assert attempts.delay_after(response()) is None

    def test_retry_after_is_a_lower_limit(self) -> None:
        generator = random.Random(0)
        for _ in range(100):
            attempts = Attempts(Retry(first_s=0.25), jitter=generator.random)
            assert 7 < (attempts.delay_after(response(Retry_After="7")) or 0) <= 7.25

    def test_retry_after_beyond_the_total_time_is_final(self) -> None:
        assert Attempts(Retry(total_s=60)).delay_after(response(Retry_After="61")) is None

    @pytest.mark.parametrize("status", [200, 301, 400, 401, 404, 413, 422, 500, 504])
    def test_status_that_is_not_retried(self, status: int) -> None:
        assert Attempts(Retry()).delay_after(response(status, Retry_After="1")) is None

    @pytest.mark.parametrize("status", [429, 502, 503])
    def test_status_that_is_retried(self, status: int) -> None:
        assert Attempts(Retry()).delay_after(response(status)) is not None

    def test_connection_errors(self) -> None:
        for transient in (httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.ReadError):
            assert Attempts(Retry()).delay_after(transient("x")) is not None
        for permanent in (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.DecodingError):
            assert Attempts(Retry()).delay_after(permanent("x")) is None

    def test_negative_settings_are_rejected(self) -> None:
        with pytest.raises(ValueError, match="retries=-1"):
            Retry(retries=-1)


class TestRetryAfter:
    @pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("7", 7), (" 120 ", 120)])
    def test_seconds(self, value: str, seconds: float) -> None:
        assert retry_after({"Retry-After": value}) == seconds

    def test_http_dates(self) -> None:
        assert retry_after({"Retry-After": http_date(30)}) == pytest.approx(30, abs=1.5)
        assert retry_after({"Retry-After": http_date(-30)}) == 0

    def test_dates_are_relative_to_the_clock_of_the_sender(self) -> None:
        headers = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:28:05 GMT"}
        assert retry_after(headers) == 5

    @pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "inf", "nan", "٣", "Wed, 99 Oct 2015 07:28:00 GMT"])
    def test_malformed_values_are_ignored(self, value: str) -> None:
        assert retry_after({"Retry-After": value}) is None
        assert retry_after({}) is None


class TestMeasuredDelays:
    RETRY = Retry(retries=3, first_s=0.02, total_s=30)

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_seconds(self, connect: Connect, busy: BusyServer, status: int) -> None:
        busy.failures = [Failure(status, {"Retry-After": "1"})]
        with connect(busy.url, retry=self.RETRY) as client:
            assert len(client.score([PNG, PNG]).scored) == 2
        (delay,) = busy.delays()
        assert 1 <= delay < 1.6

    def test_retry_after_date(self, connect: Connect, busy: BusyServer) -> None:
        due = time.time() + 2
        busy.failures = [Failure(503, {"Retry-After": http_date(2)})]
        with connect(busy.url, retry=self.RETRY) as client:
            client.score(PNG)
        assert time.time() >= int(due)  # dates have whole seconds
        assert busy.delays()[0] > 0.9

    def test_delays_grow_without_retry_after(self, connect: Connect, busy: BusyServer) -> None:
        busy.failures = [Failure(429), Failure(503), Failure(502)]
        with connect(busy.url, retry=Retry(retries=3, first_s=0.1)) as client:
            client.score(PNG)
        first, second, third = busy.delays()
        assert 0.05 <= first < 0.5
        assert 0.1 <= second < 0.6
        assert 0.2 <= third < 0.9

    def test_lost_connection_is_retried(self, connect: Connect, busy: BusyServer) -> None:
        busy.failures = [Failure(None), Failure(None)]
        with connect(busy.url, retry=self.RETRY) as client:
            assert len(client.score(PNG).scored) == 1
        assert len(busy.times) == 3

    def test_last_error_is_raised_after_all_attempts(self, connect: Connect, busy: BusyServer) -> None:
        busy.failures = [Failure(503)] * 3 + [Failure(429)] * 9
        with connect(busy.url, retry=self.RETRY) as client, pytest.raises(Overloaded) as caught:
            client.score(PNG)
        assert caught.value.detail == "wait"
        assert len(busy.times) == 4

    def test_long_retry_after_fails_at_once(self, connect: Connect, busy: BusyServer) -> None:
        busy.failures = [Failure(503, {"Retry-After": "3600"})]
        started = time.monotonic()
        with connect(busy.url) as client, pytest.raises(Unavailable):
            client.score(PNG)
        assert time.monotonic() - started < 5

    def test_internal_server_error_is_not_retried(self, connect: Connect, busy: BusyServer) -> None:
        busy.failures = [Failure(500), Failure(500)]
        with connect(busy.url, retry=self.RETRY) as client, pytest.raises(Problem):
            client.score(PNG)
        assert len(busy.times) == 1


@pytest.fixture
def silent_port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


def test_timeout_is_retried(connect: Connect, silent_port: int) -> None:
    retry = Retry(retries=2, first_s=0.01)
    started = time.monotonic()
    client = connect(f"http://127.0.0.1:{silent_port}", timeout_s=0.1, retry=retry)
    with client, pytest.raises(ServiceUnreachable, match="timeout"):
        client.score(PNG)
    assert 0.3 <= time.monotonic() - started < 5
