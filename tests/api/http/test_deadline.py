"""The time limit of requests."""

import asyncio
import time

import pytest

from app.api.errors import RequestTimedOut
from app.api.http.deadline import deadline


async def sleep_within(seconds: float, limit: float) -> str:
    with deadline(limit):
        await asyncio.sleep(seconds)
    await asyncio.sleep(0)  # no cancellation may be pending
    return "done"


def test_block_within_the_deadline_completes() -> None:
    assert asyncio.run(sleep_within(0.01, 5)) == "done"


def test_block_past_the_deadline_is_cancelled() -> None:
    with pytest.raises(RequestTimedOut, match=r"0\.02 s, upload included"):
        asyncio.run(sleep_within(5, 0.02))


def test_task_can_continue_after_a_deadline() -> None:
    async def scenario() -> str:
        with pytest.raises(RequestTimedOut):
            await sleep_within(5, 0.01)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0.01)
        return await sleep_within(0.01, 5)

    assert asyncio.run(scenario()) == "done"


def test_deadline_does_not_change_errors_of_the_block() -> None:
    async def scenario() -> None:
        with deadline(5):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(scenario())


def test_deadline_does_not_hide_a_cancellation_from_elsewhere() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(sleep_within(5, 5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_deadline_does_not_hide_a_simultaneous_cancellation() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(sleep_within(5, 0.01))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        time.sleep(0.03)  # noqa: ASYNC251  both are due at once
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
