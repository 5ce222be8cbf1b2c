"""The deadline cuts off what takes too long, and nothing else."""

import asyncio
import time

import pytest

from app.api.errors import RequestTimedOut
from app.api.http.deadline import deadline


async def sleep_within(seconds: float, limit: float) -> str:
    with deadline(limit):
        await asyncio.sleep(seconds)
    await asyncio.sleep(0)  # no cancellation is left behind
    return "done"


def test_what_is_quick_passes() -> None:
    assert asyncio.run(sleep_within(0.01, 5)) == "done"


def test_what_is_slow_is_cut_off_and_told_so() -> None:
    with pytest.raises(RequestTimedOut, match=r"0\.02 s, upload included"):
        asyncio.run(sleep_within(5, 0.02))


def test_the_task_goes_on_afterwards() -> None:
    async def scenario() -> str:
        with pytest.raises(RequestTimedOut):
            await sleep_within(5, 0.01)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0.01)
        return await sleep_within(0.01, 5)

    assert asyncio.run(scenario()) == "done"


def test_an_error_of_the_body_stays_what_it_is() -> None:
    async def scenario() -> None:
        with deadline(5):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(scenario())


def test_a_cancellation_from_elsewhere_goes_on() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(sleep_within(5, 5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_so_does_one_that_comes_with_the_deadline() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(sleep_within(5, 0.01))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        time.sleep(0.03)  # noqa: ASYNC251  both are due at once
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
