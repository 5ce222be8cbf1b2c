"""The engine: admits pictures, decodes them, gathers them into batches, runs the forward passes.

Micro-batching needs no timer: while one forward pass runs, what arrives becomes the next batch. An idle
service therefore answers at once, a busy one works in full batches. All of it runs on one event loop;
forward passes share one worker thread, large pictures are decoded and encoded in a few others.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Final, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from app.inference.bundle import BatchScores, Bundle
from app.inference.errors import InferenceError, NonFiniteScore, Overloaded
from app.inference.images import Decoded, InputSpec, open_picture
from app.inference.rendering import to_pixels

# Below these a thread switch costs more than the work itself.
_INLINE_BYTES: Final = 64 * 1024
_INLINE_PIXELS: Final = 256 * 256
_INLINE_S: Final = 0.005  # but many small pictures of one request must not hold the event loop for longer

# A picture whose negative has less than half its error was probably taken dark on light instead of light on dark.
_MUCH_LOWER: Final = 0.5

_WARM_UP_RUNS: Final = 3  # TorchScript's executor profiles and then optimises its first calls

_T = TypeVar("_T")


class Scored(NamedTuple):
    """What the model made of one picture.

    Attributes:
        original: (C, H, W) float32 in [0, 1], the model's input.
        row: what the forward pass gave for it.
        p_value: conformal p-value of the score, in (0, 1].
        warnings: what was done to the picture before, or looks wrong.
    """

    original: torch.Tensor
    row: "Row"
    p_value: float
    warnings: tuple[str, ...]


class Row(NamedTuple):
    """One picture's share of a batch.

    Attributes:
        reconstruction: (C, H, W) float32.
        pixels: the same for the eye, (H, W) or (H, W, 3) 8-bit.
        mse: mean squared difference to the input over channels and pixels.
        score: the error that the verdict is decided on.
        queue_s: how long the picture waited for its batch.
        compute_s: how long the batch's forward pass took.
    """

    reconstruction: torch.Tensor
    pixels: NDArray[np.uint8]
    mse: float
    score: float
    queue_s: float
    compute_s: float


@dataclass(frozen=True)
class BatchDone:
    """Told to the engine's observer after each forward pass."""

    model: str
    size: int
    compute_s: float


class _Waiting(NamedTuple):
    """A picture in the queue of its model."""

    image: torch.Tensor
    done: asyncio.Future[Row]
    since: float


class ServedModel:
    """A loaded bundle with its queue. Replacing a model leaves requests that hold the old one unharmed."""

    def __init__(self, bundle: Bundle, engine: "Engine") -> None:
        self.bundle = bundle
        self._engine = engine
        self._waiting: deque[_Waiting] = deque()
        self._drain: asyncio.Task[None] | None = None

    async def forward(self, images: Iterable[torch.Tensor]) -> list[Row]:
        """Queues (C, H, W) pictures for the next batches; cancelling drops those that still wait."""
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        waiting = [_Waiting(image, loop.create_future(), now) for image in images]
        if not waiting:
            return []
        self._waiting.extend(waiting)
        if self._drain is None:
            self._drain = asyncio.create_task(self._run_batches())
        return await _all_of([each.done for each in waiting])

    async def _run_batches(self) -> None:
        try:
            while batch := self._next_batch():
                await self._run(batch)
        finally:
            self._drain = None

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._engine.max_batch:
            waiting = self._waiting.popleft()
            if not waiting.done.done():  # a request that timed out or went away has cancelled its future
                batch.append(waiting)
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        began = time.perf_counter()
        try:
            scores, pixels = await self._engine.compute(lambda: self._forward([waiting.image for waiting in batch]))
        except Exception as error:
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        seconds = time.perf_counter() - began
        rows = zip(scores.reconstruction, pixels, scores.mse, scores.score, strict=True)
        for waiting, row in zip(batch, rows, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(Row(*row, queue_s=began - waiting.since, compute_s=seconds))
        self._engine.observe(BatchDone(self.bundle.manifest.name, len(batch), seconds))

    def _forward(self, images: list[torch.Tensor]) -> tuple[BatchScores, NDArray[np.uint8]]:
        scores = self.bundle.score_batch(torch.stack(images))
        return scores, to_pixels(scores.reconstruction)


class Engine:
    """Shared by all models of a process.

    Args:
        max_batch: pictures in one forward pass at most.
        queue_size: pictures admitted at a time; one more is refused.
        max_pixels: the largest width × height that is decoded.
        decode_threads: how many large pictures are decoded at once.
        observe: called on the event loop after every forward pass.
        observe_depth: called whenever the number of pictures in work changes.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        queue_size: int,
        max_pixels: int,
        decode_threads: int = 2,
        observe: Callable[[BatchDone], None] = lambda _: None,
        observe_depth: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.max_batch = max_batch
        self.queue_size = queue_size
        self.max_pixels = max_pixels
        self.observe = observe
        self._observe_depth = observe_depth
        self._admitted = 0
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._pictures = ThreadPoolExecutor(decode_threads, thread_name_prefix="picture")

    def require_room(self, pictures: int = 1) -> None:
        """Refuses early, before a body is read, what would be refused anyway.

        Raises:
            Overloaded: as :meth:`admit`.
        """
        if self._admitted + pictures > self.queue_size:
            raise Overloaded(f"{self._admitted} pictures are in work, {self.queue_size} is the limit")

    @contextmanager
    def admit(self, pictures: int) -> Iterator[None]:
        """Holds places for a request's pictures while they are decoded, scored and answered.

        Raises:
            Overloaded: the places left do not suffice; nothing was started.
        """
        self.require_room(pictures)
        self._admit(pictures)
        try:
            yield
        finally:
            self._admit(-pictures)

    def _admit(self, pictures: int) -> None:
        self._admitted += pictures
        self._observe_depth(self._admitted)

    async def score_files(self, model: ServedModel, files: Sequence[bytes]) -> list[Scored | InferenceError]:
        """Scores image files; the answers stand in the files' order, a refused one as its exception."""
        pictures = await self._decode_all(model.bundle.spec, files)
        readable = [picture for picture in pictures if isinstance(picture, Decoded)]
        rows = await model.forward(picture.tensor for picture in readable)
        doubts = await self._doubts(model, readable, rows)
        scored = map(_judge, repeat(model), readable, rows, doubts)
        return [next(scored) if isinstance(picture, Decoded) else picture for picture in pictures]

    async def compute(self, work: Callable[[], _T]) -> _T:
        """Runs work in the thread of forward passes, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._compute, work)

    async def render(self, pixels: int, work: Callable[[], _T]) -> _T:
        """Makes pictures of results: here when they are small, in a thread when large."""
        if pixels <= _INLINE_PIXELS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pictures, work)

    async def serve(self, bundle: Bundle) -> ServedModel:
        """Warms a bundle up, for every batch size that matters, and gives it a queue."""

        def warm_up() -> None:
            for size in {1, 2, self.max_batch}:
                for _ in range(_WARM_UP_RUNS):
                    bundle.score_batch(torch.zeros(size, *bundle.spec.shape))

        await self.compute(warm_up)
        return ServedModel(bundle, self)

    def close(self) -> None:
        """Lets the threads go; queued work is dropped."""
        self._compute.shutdown(wait=False, cancel_futures=True)
        self._pictures.shutdown(wait=False, cancel_futures=True)

    async def _doubts(
        self, model: ServedModel, pictures: Sequence[Decoded], rows: Sequence[Row]
    ) -> list[tuple[str, ...]]:
        """What looks wrong with pictures, judged by their scores; normal ones cost nothing here."""
        lowest, highest = model.bundle.calibration.scores[0], model.bundle.calibration.scores[-1]
        threshold = model.bundle.manifest.threshold
        suspects = [index for index, row in enumerate(rows) if row.score > threshold]
        negatives = await model.forward(1 - pictures[index].tensor for index in suspects)
        negative_scores = dict(zip(suspects, (row.score for row in negatives), strict=True))
        doubts: list[tuple[str, ...]] = []
        for index, row in enumerate(rows):
            found: list[str] = []
            if row.score < lowest:
                found.append(
                    "the score lies below that of every calibration picture: emptier or simpler than what was learned"
                )
            if row.score > highest:
                found.append("the score lies above that of every calibration picture")
            if (negative := negative_scores.get(index, math.inf)) < _MUCH_LOWER * row.score:
                found.append(f"looks inverted: its negative would score {negative:.4g}")
            doubts.append(tuple(found))
        return doubts

    async def _decode_all(self, spec: InputSpec, files: Sequence[bytes]) -> list[Decoded | InferenceError]:
        """Decodes small pictures here, for as long as one request may hold the event loop, and others in threads."""
        loop, until = asyncio.get_running_loop(), time.perf_counter() + _INLINE_S
        outcomes: list[Decoded | InferenceError | asyncio.Future[Decoded | InferenceError]] = []
        for data in files:
            outcome = self._decode_small(spec, data) if time.perf_counter() < until else None
            outcomes.append(outcome or loop.run_in_executor(self._pictures, self._decode, spec, data))
        elsewhere = iter(await _all_of([each for each in outcomes if isinstance(each, asyncio.Future)]))
        return [next(elsewhere) if isinstance(each, asyncio.Future) else each for each in outcomes]

    def _decode_small(self, spec: InputSpec, data: bytes) -> Decoded | InferenceError | None:
        """The picture or its refusal; None if it is large."""
        if len(data) > _INLINE_BYTES:
            return None
        try:
            picture = open_picture(data, max_pixels=self.max_pixels)
            return picture.decode(spec) if picture.pixels <= _INLINE_PIXELS else None
        except InferenceError as refusal:
            return refusal

    def _decode(self, spec: InputSpec, data: bytes) -> Decoded | InferenceError:
        try:
            return open_picture(data, max_pixels=self.max_pixels).decode(spec)
        except InferenceError as refusal:
            return refusal


def _judge(model: ServedModel, picture: Decoded, row: Row, doubts: tuple[str, ...]) -> Scored | NonFiniteScore:
    try:
        p_value = model.bundle.calibration.p_value(row.score)
    except NonFiniteScore as refusal:
        return refusal
    if not math.isfinite(row.mse):
        return NonFiniteScore(f"the model returned an MSE of {row.mse}")
    return Scored(picture.tensor, row, p_value, picture.warnings + doubts)


async def _all_of(futures: Sequence[asyncio.Future[_T]]) -> list[_T]:
    """Their results in order. If one fails, or the caller is cancelled, all that are not done are cancelled."""
    try:
        return [await future for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise
