"""Fair shares: whose item is next, and who may add work."""

import asyncio

import pytest

from app.inference.bundles.bundle import Bundle
from app.inference.errors import Overloaded, TooMuchMemory
from app.inference.images.cost import DecodeCost
from app.inference.serving.backlog import Backlog
from app.inference.serving.decode_queue import DecodeQueue
from app.inference.serving.engine import Engine
from app.inference.serving.fair_queue import FairQueue
from app.inference.serving.memory import Memory
from tests.support import encode, gradient

PNG = encode(gradient())
MIB = 2**20


def drained(queue: FairQueue[str]) -> list[str]:
    taken = []
    while queue:
        taken.append(queue.peek())
        assert queue.pop() == taken[-1]
    return taken


async def wait_for_turn(queue: DecodeQueue) -> None:
    async with queue.turn("a", "m", DecodeCost(MIB, 1)):
        pass


async def hold(queue: DecodeQueue, images: int) -> list[asyncio.Task[None]]:
    """Decoded images, after some turns of the event loop."""
    tasks = [asyncio.create_task(queue.coalesce()) for _ in range(images)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


class TestFairQueue:
    def test_parties_take_turns_however_much_one_has_queued(self) -> None:
        queue = FairQueue[str]()
        for number in range(5):
            queue.push(f"a{number}", 1, ["a"])
        queue.push("b", 1, ["b"])
        assert queue.pop() == "a0"
        queue.push("c", 1, ["c"])
        assert drained(queue) == ["b", "c", "a1", "a2", "a3", "a4"]

    def test_expensive_items_count_for_what_they_cost(self) -> None:
        queue = FairQueue[str]()
        for number in range(2):
            queue.push(f"bomb{number}", 2, ["attacker"])
        for number in range(50):
            queue.push(f"{number}", 0.1, ["honest"])
        assert queue.pop() == "bomb0"
        order = drained(queue)
        assert 19 <= order.index("bomb1") <= 21

    def test_idle_time_earns_nothing(self) -> None:
        queue = FairQueue[str]()
        for number in range(100):
            queue.push(f"a{number}", 1, ["a"])
        for _ in range(50):
            queue.pop()
        for number in range(10):
            queue.push(f"b{number}", 1, ["b"])
        first = [queue.pop() for _ in range(10)]
        assert 4 <= sum(item.startswith("b") for item in first) <= 6

    def test_party_that_sends_one_item_at_a_time_is_served_no_more(self) -> None:
        queue = FairQueue[str]()
        queue.push("bomb0", 10, ["attacker"])
        assert queue.pop() == "bomb0"
        queue.push("bomb1", 10, ["attacker"])
        for number in range(5):
            queue.push(f"{number}", 1, ["honest"])
        assert drained(queue) == ["0", "1", "2", "3", "4", "bomb1"]
        queue.forget()
        queue.push("bomb2", 10, ["attacker"])
        queue.push("5", 1, ["honest"])
        assert drained(queue) == ["bomb2", "5"]

    def test_parties_within_a_party_share_its_turn(self) -> None:
        queue = FairQueue[str]()
        for model in range(10):
            queue.push(f"many{model}", 1, ["many", f"model{model}"])
        for number in range(3):
            queue.push(f"one{number}", 1, ["one", "model0"])
        assert [item[:3] for item in drained(queue)][:6].count("one") == 3

    def test_dropped_items_cost_nothing(self) -> None:
        queue = FairQueue[str]()
        for item in ("a0", "a1"):
            queue.push(item, 5, ["a"])
        queue.push("b0", 1, ["b"])
        queue.drop()
        assert drained(queue) == ["a1", "b0"]


class TestBacklog:
    def test_share_of_a_client(self) -> None:
        backlog = Backlog(10)
        backlog.add("a", 10)
        assert not backlog.has_share("a", 1)
        assert backlog.has_share("b", 3)
        backlog.add("b", 3)
        assert backlog.has_share("b", 2)
        assert not backlog.has_share("b", 3)

    def test_time_to_wait_follows_from_what_was_done(self) -> None:
        now = [100.0]
        backlog = Backlog(10, now=lambda: now[0])
        backlog.add("a", 20)
        now[0] += 2
        assert backlog.seconds_until_room(0) == 2  # nothing was done in two seconds
        backlog.add("a", -4)
        assert backlog.seconds_until_room(0) == 3  # 6 too many, 2 per second
        assert backlog.seconds_until_room(4) == 5
        assert backlog.seconds_until_room(1000) == 60
        backlog.add("a", -16)
        assert backlog.seconds_until_room(1) == 1

    def test_a_later_window_forgets_the_earlier_rate(self) -> None:
        now = [0.0]
        backlog = Backlog(10, now=lambda: now[0])
        backlog.add("a", 1000)
        now[0] = 1
        backlog.add("a", -900)
        waits = []
        for _ in range(30):
            now[0] += 6
            waits.append(backlog.seconds_until_room(0))
        assert waits[0] == 1
        assert waits[-1] > 30

    def test_fractions_leave_no_remainder(self) -> None:
        backlog = Backlog(1)
        for _ in range(3):
            backlog.add("a", 0.1)
        for _ in range(3):
            backlog.add("a", -0.1)
        backlog.add("a", 0.2)
        backlog.add("a", -0.2)
        assert backlog.total < 1e-9


class TestDecodeQueue:
    def test_images_start_within_memory_and_slots(self) -> None:
        async def scenario() -> None:
            memory = Memory(MIB)
            memory.set_limit(100 * MIB)
            queue, started = DecodeQueue(2, memory), []
            release = asyncio.Event()

            async def decode(name: str, mib: int) -> None:
                async with queue.turn(name[0], "m", DecodeCost(mib * MIB, 1)):
                    started.append(name)
                    await release.wait()

            tasks = [asyncio.create_task(decode(*each)) for each in (("a1", 60), ("a2", 60), ("b1", 20), ("c1", 20))]
            await asyncio.sleep(0.01)
            assert started == ["a1", "b1"]
            assert memory.decoding == 80 * MIB
            tasks[2].cancel()
            await asyncio.sleep(0.01)
            assert started == ["a1", "b1", "c1"]
            release.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert started == ["a1", "b1", "c1", "a2"]
            assert memory.decoding == 0

        asyncio.run(scenario())

    @pytest.mark.parametrize(("waiting", "images", "released"), [(0, 1, 1), (0, 3, 3), (1, 1, 0), (1, 5, 0), (1, 6, 6)])
    def test_decoded_images_are_held_while_others_wait_for_their_turn(
        self, monkeypatch: pytest.MonkeyPatch, waiting: int, images: int, released: int
    ) -> None:
        async def scenario() -> None:
            queue = DecodeQueue(1, Memory(MIB))
            async with queue.turn("a", "m", DecodeCost(MIB, 1)):
                others = [asyncio.create_task(wait_for_turn(queue)) for _ in range(waiting)]
                await asyncio.sleep(0)
                tasks = await hold(queue, images)
                assert [task.done() for task in tasks] == [True] * released + [False] * (images - released)
            await asyncio.gather(*others)
            await asyncio.gather(queue.coalesce(), *tasks)  # nothing waits for its turn any more

        monkeypatch.setattr("app.inference.serving.decode_queue._LONGEST_HOLD_S", 3600)
        asyncio.run(scenario())

    def test_held_images_are_released_after_a_moment_and_without_those_that_were_cancelled(self) -> None:
        async def scenario() -> None:
            queue = DecodeQueue(1, Memory(MIB))
            async with queue.turn("a", "m", DecodeCost(MIB, 1)):
                other = asyncio.create_task(wait_for_turn(queue))
                await asyncio.sleep(0)
                cancelled, *tasks = await hold(queue, 3)
                cancelled.cancel()
                async with asyncio.timeout(60):
                    await asyncio.gather(*tasks)
                assert cancelled.cancelled()
            await other

        asyncio.run(scenario())

    def test_image_that_can_never_fit_is_refused(self) -> None:
        async def scenario() -> None:
            memory = Memory(MIB)
            memory.set_limit(100 * MIB)
            with pytest.raises(TooMuchMemory, match="takes about 101 MiB"):
                async with DecodeQueue(1, memory).turn("a", "m", DecodeCost(101 * MIB, 1)):
                    pass

        asyncio.run(scenario())

    def test_image_does_not_wait_for_requests_that_may_wait_for_it(self) -> None:
        async def scenario() -> None:
            memory = Memory(MIB)
            memory.set_limit(100 * MIB)
            memory.take("b", 10 * MIB)
            queue = DecodeQueue(1, memory)
            with pytest.raises(Overloaded):
                async with queue.turn("a", "m", DecodeCost(95 * MIB, 1)):
                    pass
            async with queue.turn("a", "m", DecodeCost(80 * MIB, 1)):
                assert memory.decoding == 80 * MIB

        asyncio.run(scenario())


def test_many_images_of_one_client_do_not_delay_a_few_of_others(bundle: Bundle) -> None:
    """They share the next batch; 300 images used to go first."""

    async def scenario() -> None:
        sizes: list[int] = []
        engine = Engine(max_batch=8, queue_size=64, max_pixels=10**6, observe=lambda batch: sizes.append(batch.size))
        model = await engine.serve(bundle)
        many = asyncio.ensure_future(model.run([PNG] * 300, client="batch"))
        await asyncio.sleep(0)
        few = [asyncio.ensure_future(model.run([PNG], client=f"single {number}")) for number in range(3)]
        await asyncio.gather(*few)
        assert len(sizes) <= 2
        assert len(await many) == 300
        assert sum(sizes) == 303
        assert set(sizes[:-1]) == {8}  # batches are full nevertheless
        engine.close()

    asyncio.run(scenario())


def test_client_below_its_share_is_admitted_to_a_full_queue(bundle: Bundle) -> None:
    """A batch client filled the queue, and 98 of 116 single images of others got 429."""

    async def scenario() -> None:
        engine = Engine(max_batch=4, queue_size=8, max_pixels=10**6, decode_threads=1, decode_s=1)
        model = await engine.serve(bundle)
        with engine.admit(model, 8, client="batch"):
            with pytest.raises(Overloaded):
                engine.require_room(model, client="batch")
            for number in range(5):
                with engine.admit(model, 1, client=f"single {number}"):
                    pass
            with pytest.raises(Overloaded):
                engine.require_room(model, 9, client="another")
        with engine.admit(model, 1, client="batch", seconds=100):
            with pytest.raises(Overloaded, match="100 s to decode") as refused:
                engine.require_room(model, client="batch", seconds=0.1)
            assert refused.value.retry_after_s >= 1
            engine.require_room(model, client="batch")  # a small image takes no decoding
            engine.require_room(model, client="single", seconds=0.1)
        engine.close()

    asyncio.run(scenario())


def test_engine_notices_that_nothing_is_finished(bundle: Bundle) -> None:
    async def scenario() -> None:
        engine = Engine(max_batch=4, queue_size=8, max_pixels=10**6)
        model = await engine.serve(bundle)
        await asyncio.sleep(0.05)
        assert engine.stalled_s() == 0
        with engine.admit(model, 1):
            assert engine.stalled_s() < 0.04
            await asyncio.sleep(0.06)
            assert engine.stalled_s() > 0.05
            await model.run([PNG])
            assert engine.stalled_s() < 0.04
        assert engine.stalled_s() == 0
        engine.close()

    asyncio.run(scenario())
