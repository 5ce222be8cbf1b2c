"""The queue of images that are decoded outside their batch: by client, by cost, and within the memory.

Under load it also holds decoded images for a moment, so that several share a batch.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from app.inference.errors import Overloaded
from app.inference.images.cost import DecodeCost
from app.inference.serving.fair_queue import FairQueue
from app.inference.serving.memory import Memory

# Groups of six gained more than groups of four, with eight connections that send 1920 × 1080 JPEG. The longest hold is
# about as long as decoding such a group.
_GROUP: Final = 6
_LONGEST_HOLD_S: Final = 0.05


class _Waiting(NamedTuple):
    turn: "asyncio.Future[None]"
    memory: int


class DecodeQueue:
    """Lets images be decoded a few at a time.

    The client that has had the least decoding time is next, and of its models likewise. An image starts when its memory
    is free; until then no other image starts, or small images could keep a large one waiting for ever.

    Args:
        at_once: most images that are decoded at the same time.
        memory: of the process.
    """

    def __init__(self, at_once: int, memory: Memory) -> None:
        self._free = at_once
        self._memory = memory
        self._waiting: FairQueue[_Waiting] = FairQueue()
        self._running = 0
        self._held = 0
        self._released: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def turn(self, client: str, model: str, cost: DecodeCost) -> AsyncIterator[None]:
        """Waits for the turn of an image, and lets the next one follow at the end of the ``with`` block.

        Args:
            client: who sent it.
            model: name of the model that it is for.
            cost: of decoding it.

        Raises:
            TooMuchMemory: it can never be decoded within the memory.
            Overloaded: it is so large that it must wait until requests have given memory back.
        """
        self._memory.require_possible(cost.memory)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.push(_Waiting(turn, cost.memory), cost.seconds, (client, model))
        self._start()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._free += 1
                self._running -= 1
                self._memory.decoding -= cost.memory
            self._start()

    async def coalesce(self) -> None:
        """Holds a decoded image while others wait for their turn, so that a few are scored and answered together.

        Decoding evicts the model's and the server's code and data from the processor's caches. The first image that
        is scored and answered afterwards pays for that, and the next ones do not.
        """
        self._held += 1
        if self._held >= _GROUP or not self._waiting:
            self._release(self._released)
            return
        if self._released is None:
            loop = asyncio.get_running_loop()
            self._released = loop.create_future()
            loop.call_later(_LONGEST_HOLD_S, self._release, self._released)
        await asyncio.shield(self._released)  # it is shared: cancelling one request must not cancel the others

    def _release(self, group: "asyncio.Future[None] | None") -> None:
        """Releases a group of held images; does nothing if it was released before."""
        if group is self._released:
            self._held, self._released = 0, None
            if group is not None:
                group.set_result(None)

    def _start(self) -> None:
        """Starts the images whose turn it is."""
        if not self._waiting and not self._running:
            self._waiting.forget()
        while self._waiting and self._free:
            turn, memory = self._waiting.peek()
            if turn.done():  # cancelled: the request timed out or its client disconnected
                self._waiting.drop()
            elif self._memory.fits(memory):
                self._waiting.pop()
                self._free -= 1
                self._running += 1
                self._memory.decoding += memory
                turn.set_result(None)
            elif self._running:
                return  # its memory will be free when these are finished
            else:
                # Requests hold the memory, and perhaps wait for this image: it cannot wait for them.
                self._waiting.drop()
                missing = math.ceil(memory / 2**20)
                turn.set_exception(Overloaded(f"the image takes about {missing} MiB of memory, which is in use now", 2))
