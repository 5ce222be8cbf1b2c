"""The queue of images that are decoded outside their batch: by client, by cost, and within the memory.

Behind it, decoded images wait for each other.
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

_TOGETHER: Final = 6
_TOGETHER_S: Final = 0.05


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
        self._gathered = 0
        self._complete: asyncio.Future[None] | None = None

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

    async def gather(self) -> None:
        """Keeps a decoded image back while others wait for their turn, until a few can be scored and answered together.

        Decoding displaces everything else from the processor's caches. What follows then takes several times as long as
        it does for small images, but only for the first of those that follow each other.
        """
        self._gathered += 1
        if self._gathered >= _TOGETHER or not self._waiting:
            self._let_go(self._complete)
            return
        if self._complete is None:
            loop = asyncio.get_running_loop()
            self._complete = loop.create_future()
            loop.call_later(_TOGETHER_S, self._let_go, self._complete)
        await asyncio.shield(self._complete)  # each of them may be cancelled

    def _let_go(self, complete: "asyncio.Future[None] | None") -> None:
        """Lets the images go that were kept back, unless that was done since."""
        if complete is self._complete:
            self._gathered, self._complete = 0, None
            if complete is not None:
                complete.set_result(None)

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
