"""Clients that disconnect while their image is scored."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from app.api.errors import RequestTimedOut
from app.api.http.deadline import deadline
from app.api.http.disconnect import DISCONNECT_EXTENSION, DisconnectCallbacks, cancelled_on_disconnect


async def sleep_while_connected(callbacks: DisconnectCallbacks, seconds: float) -> str:
    with cancelled_on_disconnect({"extensions": {DISCONNECT_EXTENSION: callbacks}}):
        await asyncio.sleep(seconds)
    await asyncio.sleep(0)  # no cancellation may be pending
    return "done"


def disconnect(callbacks: DisconnectCallbacks) -> None:
    for callback in [*callbacks]:
        callback()


def test_block_of_a_connected_client_completes_and_removes_its_callback() -> None:
    callbacks: DisconnectCallbacks = set()
    assert asyncio.run(sleep_while_connected(callbacks, 0.01)) == "done"
    assert not callbacks


def test_disconnect_cancels_the_block_and_the_task_can_continue() -> None:
    callbacks: DisconnectCallbacks = set()

    async def scenario() -> str:
        asyncio.get_running_loop().call_later(0.01, disconnect, callbacks)
        with pytest.raises(ClientDisconnect):
            await sleep_while_connected(callbacks, 5)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return await sleep_while_connected(callbacks, 0.01)

    assert asyncio.run(scenario()) == "done"
    assert not callbacks


def test_simultaneous_disconnect_and_deadline_cancel_once() -> None:
    callbacks: DisconnectCallbacks = set()

    async def scenario() -> None:
        asyncio.get_running_loop().call_later(0.01, disconnect, callbacks)
        with pytest.raises(RequestTimedOut), deadline(0.01):
            await sleep_while_connected(callbacks, 5)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(scenario())


def test_disconnect_cancels_all_requests_of_the_connection() -> None:
    callbacks: DisconnectCallbacks = set()

    async def scenario() -> list[object]:
        tasks = [asyncio.ensure_future(sleep_while_connected(callbacks, 5)) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(callbacks) == 3
        disconnect(callbacks)
        return [*await asyncio.gather(*tasks, return_exceptions=True)]

    assert [type(outcome) for outcome in asyncio.run(scenario())] == [ClientDisconnect] * 3


def test_without_the_disconnect_extension_nothing_is_cancelled() -> None:
    async def scenario() -> str:
        with cancelled_on_disconnect({}):
            await asyncio.sleep(0.01)
        return "done"

    assert asyncio.run(scenario()) == "done"
