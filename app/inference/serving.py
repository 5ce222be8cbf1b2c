"""A model that serves: its queue, and the batches that are taken from it.

Micro-batching needs no timer: while one batch is worked on, what arrives becomes the next. An idle service
therefore answers at once, a busy one works in full batches. One worker thread does the work, or, for light batches,
the event loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from app.inference.images import Decoded
from app.inference.scorer import Outcome, Scored, Scorer
from app.inference.usage import Used

# Two threads of Python take turns, and each turn costs: a batch of small PNG files for a model this fast is worked on
# where it is, which serves more requests, and holds others up no longer than reading as many requests does.
# Other formats can hide work behind a small header.
LIGHT_S: Final = 0.004
_LIGHT_BYTES: Final = 64 * 1024
_LIGHT_FORMAT: Final = b"\x89PNG"

Compute: TypeAlias = Callable[[Callable[[], list[Outcome]]], Awaitable[list[Outcome]]]
"""Runs blocking work in the thread of forward passes."""


@dataclass(frozen=True)
class BatchDone:
    """Told to the engine's observer after each batch."""

    model: str
    size: int
    compute_s: float


class _Group:
    """Pictures that are answered together. They queue in order, so their outcomes come in order."""

    def __init__(self, size: int, *, encode: bool) -> None:
        self.encode = encode
        self.since = time.perf_counter()
        self.done: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._size = size
        self._outcomes: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        """One more picture is done."""
        self._outcomes.append(outcome)
        if len(self._outcomes) == self._size and not self.done.done():
            self.done.set_result(self._outcomes)

    def fail(self, error: Exception) -> None:
        """Something is broken: what is left need not be tried."""
        if not self.done.done():
            self.done.set_exception(error)


class _Waiting(NamedTuple):
    """A picture in the queue of its model."""

    content: bytes | Decoded
    group: _Group


class ServedModel(Used):
    """A loaded bundle with its queue. Replacing a model leaves requests that hold the old one unharmed.

    Args:
        scorer: works on its batches.
        max_batch: pictures in one forward pass at most.
        large_at_once: how many large pictures of it are decoded at a time.
        light: whether a full batch is a matter of a few milliseconds.
        compute: where batches that are not light are worked on.
        observe: called on the event loop after every forward pass.

    Attributes:
        bundle: what serves.
        users: requests that use it, from finding the model to the answer.
        admitted: pictures of it that are in work.
        large_turns: taken while a large picture of it is decoded.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        max_batch: int,
        large_at_once: int,
        light: bool,
        compute: Compute,
        observe: Callable[[BatchDone], None],
    ) -> None:
        super().__init__()
        self.bundle = scorer.bundle
        self.admitted = 0
        self.large_turns = asyncio.Semaphore(large_at_once)
        self._scorer = scorer
        self._max_batch = max_batch
        self._light = light
        self._compute = compute
        self._observe = observe
        self._waiting: deque[_Waiting] = deque()
        self._drain: asyncio.Task[None] | None = None

    async def run(self, contents: Iterable[bytes | Decoded], *, encode: bool = False) -> list[Outcome]:
        """Queues pictures for the next batches; cancelling drops those that still wait.

        Args:
            contents: image files, or what was decoded before.
            encode: whether the reconstructions will be asked for as PNG files.

        Returns:
            In the same order, what the model made of each, or why it was refused.
        """
        pictures = list(contents)
        if not pictures:
            return []
        group = _Group(len(pictures), encode=encode)
        self._waiting.extend([_Waiting(content, group) for content in pictures])
        if self._drain is None:
            self._drain = asyncio.create_task(self._run_batches())
        return await group.done

    async def _run_batches(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                await self._run(self._next_batch())
        finally:
            self._drain = None

    async def _gather(self) -> None:
        """Lets requests that have arrived join the next batch, as long as there are any, and never waits for one.

        A request that lies in its socket takes two turns of the event loop to get here: one reads it, one admits it.
        Other models have their turn meanwhile, too.
        """
        seen, most = 0, self._max_batch
        while seen < min(len(self._waiting), most):
            seen = min(len(self._waiting), most)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._max_batch:
            waiting = self._waiting.popleft()
            if not waiting.group.done.done():  # a request that timed out or went away has cancelled its future
                batch.append(waiting)
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        try:
            if self._is_light(batch):
                outcomes = self._work(batch)
            else:
                outcomes = await self._compute(lambda: self._work(batch))
        except Exception as error:
            for waiting in batch:
                waiting.group.fail(error)
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.group.add(outcome)
        scored = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
        if scored:
            self._observe(BatchDone(self.bundle.manifest.name, len(scored), scored[0].compute_s))

    def _is_light(self, batch: list[_Waiting]) -> bool:
        size = 0
        for waiting in batch:
            content = waiting.content
            if not isinstance(content, bytes) or not content.startswith(_LIGHT_FORMAT):
                return False
            size += len(content)
        return self._light and size <= _LIGHT_BYTES

    def _work(self, batch: list[_Waiting]) -> list[Outcome]:
        groups = [waiting.group for waiting in batch]
        return self._scorer.score(
            [waiting.content for waiting in batch],
            [group.encode for group in groups],
            [group.since for group in groups],
        )
