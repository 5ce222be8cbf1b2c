"""A client that goes away while its image is scored."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from app.api.errors import RequestTimedOut
from app.api.http.deadline import deadline
from app.api.http.disconnect import DISCONNECT_EXTENSION, DisconnectCallbacks, cancelled_on_disconnect


async def sleep_while_waiting(departure: DisconnectCallbacks, seconds: float) -> str:
    with cancelled_on_disconnect({"extensions": {DISCONNECT_EXTENSION: departure}}):
        await asyncio.sleep(seconds)
    await asyncio.sleep(0)  # no cancellation is left behind
    return "done"


def leave(departure: DisconnectCallbacks) -> None:
    for tell in [*departure]:
        tell()


def test_who_stays_is_answered_and_nobody_listens_afterwards() -> None:
    departure: DisconnectCallbacks = set()
    assert asyncio.run(sleep_while_waiting(departure, 0.01)) == "done"
    assert not departure


def test_who_goes_away_cuts_the_work_off_and_the_task_goes_on() -> None:
    departure: DisconnectCallbacks = set()

    async def scenario() -> str:
        asyncio.get_running_loop().call_later(0.01, leave, departure)
        with pytest.raises(ClientDisconnect):
            await sleep_while_waiting(departure, 5)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return await sleep_while_waiting(departure, 0.01)

    assert asyncio.run(scenario()) == "done"
    assert not departure


def test_who_goes_away_as_the_time_runs_out_is_cut_off_once() -> None:
    departure: DisconnectCallbacks = set()

    async def scenario() -> None:
        asyncio.get_running_loop().call_later(0.01, leave, departure)
        with pytest.raises(RequestTimedOut), deadline(0.01):
            await sleep_while_waiting(departure, 5)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(scenario())


def test_several_requests_of_one_connection_are_cut_off_together() -> None:
    departure: DisconnectCallbacks = set()

    async def scenario() -> list[object]:
        tasks = [asyncio.ensure_future(sleep_while_waiting(departure, 5)) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(departure) == 3
        leave(departure)
        return [*await asyncio.gather(*tasks, return_exceptions=True)]

    assert [type(outcome) for outcome in asyncio.run(scenario())] == [ClientDisconnect] * 3


def test_a_server_that_does_not_tell_has_clients_that_stay() -> None:
    async def scenario() -> str:
        with cancelled_on_disconnect({}):
            await asyncio.sleep(0.01)
        return "done"

    assert asyncio.run(scenario()) == "done"
