"""Sending again: when, how often, how long after; decided without I/O, then measured against a busy server."""

import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from app.client import Overloaded, Problem, Retry, ServiceUnreachable, Unavailable
from app.client.retrying import Attempts, retry_after
from tests.client.conftest import BusyServer, Connect, Refusing, http_date
from tests.support import encode, gradient

PNG = encode(gradient())


def response(status: int = 429, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


class TestDecisions:
    def test_pauses_double_up_to_a_limit_and_scatter(self) -> None:
        retry = Retry(retries=6, first_s=1, longest_s=10, total_s=1000)
        for chance, share in ((0.0, 0.5), (1.0, 1.0)):
            attempts = Attempts(retry, clock=lambda: 0.0, chance=lambda chance=chance: chance)  # type: ignore[misc]
            pauses = [attempts.pause_after(response()) for _ in range(7)]
            assert pauses == [share * longest for longest in (1, 2, 4, 8, 10, 10)] + [None]

    def test_no_retries(self) -> None:
        assert Attempts(Retry(retries=0)).pause_after(response()) is None

    def test_the_time_in_all_is_bounded(self) -> None:
        now = 0.0
        attempts = Attempts(Retry(retries=99, first_s=1, total_s=10), clock=lambda: now, chance=lambda: 1.0)
        assert attempts.pause_after(response()) == 1
        now = 8
        assert attempts.pause_after(response()) == 2
        now = 10
        assert attempts.pause_after(response()) is None

    def test_the_service_is_never_asked_before_it_wished(self) -> None:
        chance = random.Random(0)
        for _ in range(100):
            attempts = Attempts(Retry(first_s=0.25), chance=chance.random)
            assert 7 < (attempts.pause_after(response(Retry_After="7")) or 0) <= 7.25

    def test_a_wish_beyond_our_patience_is_final_at_once(self) -> None:
        assert Attempts(Retry(total_s=60)).pause_after(response(Retry_After="61")) is None

    @pytest.mark.parametrize("status", [200, 301, 400, 401, 404, 413, 422, 500, 504])
    def test_answers_that_would_not_change(self, status: int) -> None:
        assert Attempts(Retry()).pause_after(response(status, Retry_After="1")) is None

    @pytest.mark.parametrize("status", [429, 502, 503])
    def test_answers_that_pass(self, status: int) -> None:
        assert Attempts(Retry()).pause_after(response(status)) is not None

    def test_errors_on_the_way(self) -> None:
        for passing in (httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.ReadError):
            assert Attempts(Retry()).pause_after(passing("x")) is not None
        for hopeless in (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.DecodingError):
            assert Attempts(Retry()).pause_after(hopeless("x")) is None

    def test_settings_are_checked(self) -> None:
        with pytest.raises(ValueError, match="retries=-1"):
            Retry(retries=-1)


class TestRetryAfter:
    @pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("7", 7), (" 120 ", 120)])
    def test_seconds(self, value: str, seconds: float) -> None:
        assert retry_after({"Retry-After": value}) == seconds

    def test_dates(self) -> None:
        assert retry_after({"Retry-After": http_date(30)}) == pytest.approx(30, abs=1.5)
        assert retry_after({"Retry-After": http_date(-30)}) == 0

    def test_dates_are_read_by_the_clock_of_the_sender(self) -> None:
        headers = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:28:05 GMT"}
        assert retry_after(headers) == 5

    @pytest.mark.parametrize("odd", ["", "soon", "-1", "1.5", "inf", "nan", "٣", "Wed, 99 Oct 2015 07:28:00 GMT"])
    def test_odd_ones_count_for_nothing(self, odd: str) -> None:
        assert retry_after({"Retry-After": odd}) is None
        assert retry_after({}) is None


class TestMeasured:
    RETRY = Retry(retries=3, first_s=0.02, total_s=30)

    @pytest.mark.parametrize("status", [429, 503])
    def test_seconds_are_waited(self, connect: Connect, busy: BusyServer, status: int) -> None:
        busy.refusals = [Refusing(status, {"Retry-After": "1"})]
        with connect(busy.url, retry=self.RETRY) as client:
            assert len(client.score([PNG, PNG]).scored) == 2
        (pause,) = busy.pauses()
        assert 1 <= pause < 1.6

    def test_a_date_is_waited_for(self, connect: Connect, busy: BusyServer) -> None:
        due = time.time() + 2
        busy.refusals = [Refusing(503, {"Retry-After": http_date(2)})]
        with connect(busy.url, retry=self.RETRY) as client:
            client.score(PNG)
        assert time.time() >= int(due)  # dates have whole seconds
        assert busy.pauses()[0] > 0.9

    def test_without_a_wish_pauses_grow(self, connect: Connect, busy: BusyServer) -> None:
        busy.refusals = [Refusing(429), Refusing(503), Refusing(502)]
        with connect(busy.url, retry=Retry(retries=3, first_s=0.1)) as client:
            client.score(PNG)
        first, second, third = busy.pauses()
        assert 0.05 <= first < 0.5
        assert 0.1 <= second < 0.6
        assert 0.2 <= third < 0.9

    def test_a_connection_that_breaks_is_made_again(self, connect: Connect, busy: BusyServer) -> None:
        busy.refusals = [Refusing(None), Refusing(None)]
        with connect(busy.url, retry=self.RETRY) as client:
            assert len(client.score(PNG).scored) == 1
        assert len(busy.times) == 3

    def test_attempts_are_bounded_and_the_last_refusal_is_raised(self, connect: Connect, busy: BusyServer) -> None:
        busy.refusals = [Refusing(503)] * 3 + [Refusing(429)] * 9
        with connect(busy.url, retry=self.RETRY) as client, pytest.raises(Overloaded) as caught:
            client.score(PNG)
        assert caught.value.detail == "wait"
        assert len(busy.times) == 4

    def test_patience_ends(self, connect: Connect, busy: BusyServer) -> None:
        busy.refusals = [Refusing(503, {"Retry-After": "3600"})]
        began = time.monotonic()
        with connect(busy.url) as client, pytest.raises(Unavailable):
            client.score(PNG)
        assert time.monotonic() - began < 5

    def test_a_refusal_that_stays_is_not_sent_again(self, connect: Connect, busy: BusyServer) -> None:
        busy.refusals = [Refusing(500), Refusing(500)]
        with connect(busy.url, retry=self.RETRY) as client, pytest.raises(Problem):
            client.score(PNG)
        assert len(busy.times) == 1


@pytest.fixture
def silent_port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield listening.getsockname()[1]


def test_silence_is_a_timeout_and_tried_again(connect: Connect, silent_port: int) -> None:
    retry = Retry(retries=2, first_s=0.01)
    began = time.monotonic()
    client = connect(f"http://127.0.0.1:{silent_port}", timeout_s=0.1, retry=retry)
    with client, pytest.raises(ServiceUnreachable, match="too long"):
        client.score(PNG)
    assert 0.3 <= time.monotonic() - began < 5
