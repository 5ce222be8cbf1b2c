"""A served model: its queue, and the batches that are taken from it.

Micro-batching needs no timer: images that arrive while one batch is computed form the next one. An idle service
therefore answers at once, and a busy one works in full batches. Batches run in one worker thread or, if they are light,
on the event loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from app.inference.images.codecs.plain_png import seems_plain
from app.inference.serving.batch_scorer import BatchOutcome, BatchScorer, Content, Options, Scored
from app.inference.serving.refcount import RefCounted

# Switching between Python threads takes longer than a light batch. Small plain PNG files for a model this fast are
# scored on the event loop, which delays other requests no more than reading the same number of requests does. Any other
# small file can take much longer to decode.
LIGHT_S: Final = 0.004
_LIGHT_BYTES: Final = 64 * 1024

Compute: TypeAlias = Callable[[Callable[[], list[BatchOutcome]]], Awaitable[list[BatchOutcome]]]
"""Runs blocking work in the thread of forward passes."""


@dataclass(frozen=True)
class CompletedBatch:
    """What the engine's observer receives after each forward pass.

    Attributes:
        model: name of the model.
        size: number of images that were scored.
        compute_s: seconds from decoding to encoding.
    """

    model: str
    size: int
    compute_s: float


class _Group:
    """The images of one request. Batches take them in order, so outcomes arrive in order."""

    def __init__(self, contents: Sequence[Content], *, encode: bool, diagnose: bool) -> None:
        self.options = Options(encode, diagnose, time.perf_counter())
        self.done: asyncio.Future[list[BatchOutcome]] = asyncio.get_running_loop().create_future()
        self._contents = contents
        self._taken = 0
        self._outcomes: list[BatchOutcome] = []

    @property
    def left(self) -> int:
        """The number of images that no batch has taken yet."""
        return len(self._contents) - self._taken

    def take(self, most: int) -> Sequence[Content]:
        """The next images for a batch, at most ``most``."""
        begin, self._taken = self._taken, min(self._taken + most, len(self._contents))
        return self._contents[begin : self._taken]

    def add(self, outcomes: Sequence[BatchOutcome]) -> None:
        """Adds the outcomes of images that were taken."""
        self._outcomes += outcomes
        if len(self._outcomes) == len(self._contents) and not self.done.done():
            self.done.set_result(self._outcomes)

    def fail(self, error: Exception) -> None:
        """Fails the whole group; remaining images are dropped."""
        if not self.done.done():
            self.done.set_exception(error)


class _Share(NamedTuple):
    """The part of a batch that belongs to one group."""

    group: _Group
    contents: Sequence[Content]


class ServedModel(RefCounted):
    """A loaded bundle with its queue. Requests that use a model which is replaced finish with the old one.

    Args:
        scorer: scores its batches.
        max_batch: most images in one forward pass.
        compute: runs batches that are not light.
        observe: called on the event loop after every forward pass.

    Attributes:
        bundle: the loaded version.
        references: number of requests that use it, from look-up to response.
        admitted: number of its images in progress.
    """

    def __init__(
        self,
        scorer: BatchScorer,
        *,
        max_batch: int,
        compute: Compute,
        observe: Callable[[CompletedBatch], None],
    ) -> None:
        super().__init__()
        self.bundle = scorer.bundle
        self.admitted = 0
        self._scorer = scorer
        self._max_batch = max_batch
        self._compute = compute
        self._observe = observe
        self._waiting: dict[str, deque[_Group]] = {}  # by client; the next one first
        self._untaken = 0  # images in the waiting groups
        self._drain: asyncio.Task[None] | None = None

    async def run(
        self, contents: Iterable[Content], *, encode: bool = False, diagnose: bool = False, client: str = ""
    ) -> list[BatchOutcome]:
        """Queues images for the next batches; cancellation drops those that are still waiting.

        Clients have equal shares of a batch: many images of one do not delay a few of another.

        Args:
            contents: of the images.
            encode: whether to encode the reconstructions as PNG files.
            diagnose: whether to score the negatives of anomalies as well, to warn of inverted images.
            client: who sent them.

        Returns:
            One outcome per image, in the same order.
        """
        images = list(contents)
        if not images:
            return []
        group = _Group(images, encode=encode, diagnose=diagnose)
        groups = self._waiting.get(client)
        if groups is None:
            groups = self._waiting[client] = deque()
        groups.append(group)
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
        """Lets requests that have already arrived join the next batch, without waiting for further ones.

        A request in a socket needs two turns of the event loop to get here: one to read it, one to admit it.
        Other models run in the meantime.
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
            client = next(iter(self._waiting))
            groups = self._waiting.pop(client)
            share = max(1, room // (len(self._waiting) + 1))
            room -= share - self._take(groups, share, batch)
            if groups:
                self._waiting[client] = groups  # behind the others
        return batch

    def _take(self, groups: deque[_Group], most: int, batch: list[_Share]) -> int:
        """Adds images of a client's groups to a batch, at most so many, and returns how many places are left."""
        while groups and most:
            group = groups[0]
            cancelled = group.done.done()  # the request timed out or its client disconnected
            contents = group.take(group.left if cancelled else most)
            self._untaken -= len(contents)
            if not group.left:
                groups.popleft()
            if not cancelled:
                most -= len(contents)
                batch.append(_Share(group, contents))
        return most

    async def _run(self, batch: list[_Share]) -> None:
        try:
            if self._is_light(batch):
                outcomes = self._score(batch, only_plain=True)
            else:
                outcomes = await self._compute(lambda: self._score(batch, only_plain=False))
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
                if not isinstance(content, bytes) or not seems_plain(content):
                    return False
                size += len(content)
        return self._scorer.light and size <= _LIGHT_BYTES

    def _score(self, batch: list[_Share], *, only_plain: bool) -> list[BatchOutcome]:
        return self._scorer.score(
            [content for share in batch for content in share.contents],
            [share.group.options for share in batch for _ in share.contents],
            only_plain=only_plain,
        )
