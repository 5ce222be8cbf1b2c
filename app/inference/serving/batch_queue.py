"""A model that serves: its queue, and the batches that are taken from it.

Micro-batching needs no timer: while one batch is worked on, what arrives becomes the next. An idle service
therefore answers at once, a busy one works in full batches. One worker thread does the work, or, for light batches,
the event loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from app.inference.images.decoding import Decoded
from app.inference.serving.batch_scorer import Outcome, Scored, Scorer
from app.inference.serving.refcount import Used

# Two threads of Python take turns, and each turn costs: a batch of small PNG files for a model this fast is worked on
# where it is, which serves more requests, and holds others up no longer than reading as many requests does.
# Other formats can hide work behind a small header.
LIGHT_S: Final = 0.004
_LIGHT_BYTES: Final = 64 * 1024
_LIGHT_FORMAT: Final = b"\x89PNG"

Compute: TypeAlias = Callable[[Callable[[], list[Outcome]]], Awaitable[list[Outcome]]]
"""Runs blocking work in the thread of forward passes."""


@dataclass(frozen=True)
class CompletedBatch:
    """Told to the engine's observer after each batch."""

    model: str
    size: int
    compute_s: float


class _Group:
    """Images that are answered together. They go through batches in order, so their outcomes come in order."""

    def __init__(self, contents: Sequence[bytes | Decoded], *, encode: bool) -> None:
        self.encode = encode
        self.since = time.perf_counter()
        self.done: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._contents = contents
        self._taken = 0
        self._outcomes: list[Outcome] = []

    @property
    def left(self) -> int:
        """How many of its images no batch has taken yet."""
        return len(self._contents) - self._taken

    def take(self, most: int) -> Sequence[bytes | Decoded]:
        """Its next images for a batch."""
        begin, self._taken = self._taken, min(self._taken + most, len(self._contents))
        return self._contents[begin : self._taken]

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Of the images that were taken."""
        self._outcomes += outcomes
        if len(self._outcomes) == len(self._contents) and not self.done.done():
            self.done.set_result(self._outcomes)

    def fail(self, error: Exception) -> None:
        """Something is broken: what is left need not be tried."""
        if not self.done.done():
            self.done.set_exception(error)


class _Share(NamedTuple):
    """What of a batch belongs to one group."""

    group: _Group
    contents: Sequence[bytes | Decoded]


class ServedModel(Used):
    """A loaded bundle with its queue. Replacing a model leaves requests that hold the old one unharmed.

    Args:
        scorer: works on its batches.
        max_batch: images in one forward pass at most.
        large_at_once: how many large images of it are decoded at a time.
        light: whether a full batch is a matter of a few milliseconds.
        compute: where batches that are not light are worked on.
        observe: called on the event loop after every forward pass.

    Attributes:
        bundle: what serves.
        users: requests that use it, from finding the model to the answer.
        admitted: images of it that are in work.
        large_turns: taken while a large image of it is decoded.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        max_batch: int,
        large_at_once: int,
        light: bool,
        compute: Compute,
        observe: Callable[[CompletedBatch], None],
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
        self._waiting: deque[_Group] = deque()
        self._untaken = 0  # images in them
        self._drain: asyncio.Task[None] | None = None

    async def run(self, contents: Iterable[bytes | Decoded], *, encode: bool = False) -> list[Outcome]:
        """Queues images for the next batches; cancelling drops those that still wait.

        Args:
            contents: image files, or what was decoded before.
            encode: whether the reconstructions will be asked for as PNG files.

        Returns:
            In the same order, what the model made of each, or why it was refused.
        """
        images = list(contents)
        if not images:
            return []
        group = _Group(images, encode=encode)
        self._waiting.append(group)
        self._untaken += group.left
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
        while seen < min(self._untaken, most):
            seen = min(self._untaken, most)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _next_batch(self) -> list[_Share]:
        batch: list[_Share] = []
        room = self._max_batch
        while self._waiting and room:
            group = self._waiting[0]
            gone = group.done.done()  # a request that timed out or went away has cancelled its future
            contents = group.take(group.left if gone else room)
            self._untaken -= len(contents)
            if not group.left:
                self._waiting.popleft()
            if not gone:
                room -= len(contents)
                batch.append(_Share(group, contents))
        return batch

    async def _run(self, batch: list[_Share]) -> None:
        try:
            if self._is_light(batch):
                outcomes = self._work(batch)
            else:
                outcomes = await self._compute(lambda: self._work(batch))
        except Exception as error:
            for share in batch:
                share.group.fail(error)
            return
        begin = 0
        for share in batch:
            end = begin + len(share.contents)
            share.group.add(outcomes[begin:end])
            begin = end
        scored = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
        if scored:
            self._observe(CompletedBatch(self.bundle.manifest.name, len(scored), scored[0].compute_s))

    def _is_light(self, batch: list[_Share]) -> bool:
        size = 0
        for share in batch:
            for content in share.contents:
                if not isinstance(content, bytes) or not content.startswith(_LIGHT_FORMAT):
                    return False
                size += len(content)
        return self._light and size <= _LIGHT_BYTES

    def _work(self, batch: list[_Share]) -> list[Outcome]:
        return self._scorer.score(
            [content for share in batch for content in share.contents],
            [share.group.encode for share in batch for _ in share.contents],
            [share.group.since for share in batch for _ in share.contents],
        )
