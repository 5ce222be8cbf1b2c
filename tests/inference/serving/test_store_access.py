"""Calls of the store: each has a deadline, and neither requests nor the end of the process wait for one that hangs."""

import asyncio
import subprocess
import sys
import threading

import pytest

from app.inference.errors import BundleRejected, ModelUnavailable
from app.inference.serving import store_access as module
from app.inference.serving.store_access import StoreAccess
from tests.support import ROOT


def test_result_and_exception_are_passed_on() -> None:
    async def scenario() -> None:
        access = StoreAccess(10)
        assert await access.run(lambda: 3) == 3

        def fail() -> None:
            raise BundleRejected("reason")

        with pytest.raises(BundleRejected, match="reason"):
            await access.run(fail)

    asyncio.run(scenario())


def test_call_that_hangs_is_given_up_at_the_deadline() -> None:
    async def scenario() -> None:
        access, answered = StoreAccess(0.2), threading.Event()
        with pytest.raises(ModelUnavailable, match=r"the model store did not answer within 0\.2 s"):
            await asyncio.wait_for(access.run(answered.wait), 30)  # it never answers
        assert await access.run(lambda: 1) == 1
        answered.set()

    asyncio.run(scenario())


def test_number_of_hanging_threads_is_bounded_and_places_return() -> None:
    async def scenario() -> None:
        access, answered = StoreAccess(0.2), threading.Event()
        before = set(threading.enumerate())
        calls = await asyncio.gather(*(access.run(answered.wait) for _ in range(50)), return_exceptions=True)
        assert all(isinstance(call, ModelUnavailable) for call in calls)
        started = set(threading.enumerate()) - before
        assert len(started) == module._AT_ONCE
        with pytest.raises(ModelUnavailable):
            await access.run(lambda: 1)
        answered.set()
        while any(thread.is_alive() for thread in started):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await access.run(lambda: 1) == 1

    asyncio.run(scenario())


def test_cancelled_call_keeps_its_place_until_its_thread_ends() -> None:
    async def scenario() -> None:
        access, answered = StoreAccess(10), threading.Event()
        call = asyncio.create_task(access.run(answered.wait))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert access._slots._value == module._AT_ONCE - 1
        answered.set()
        while access._slots._value < module._AT_ONCE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_process_ends_although_a_call_hangs() -> None:
    program = (
        "import asyncio, time\n"
        "from app.inference.serving.store_access import StoreAccess\n"
        "try:\n    asyncio.run(StoreAccess(0.1).run(lambda: time.sleep(600)))\n"
        "except Exception as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "the model store did not answer within 0.1 s\n"
