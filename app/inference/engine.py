"""The engine: admits pictures, decodes them, gathers them into batches, runs the forward passes.

Micro-batching needs no timer: while one batch is worked on, what arrives becomes the next. An idle service
therefore answers at once, a busy one works in full batches. One worker thread takes a batch all the way: it
decodes the small pictures, runs one forward pass and encodes the small reconstructions, each in one tight loop,
which costs a fraction of the same work strewn between requests. Large pictures pass through a few other threads.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Final, NamedTuple, TypeVar

import torch

from app.inference.bundle import Bundle
from app.inference.errors import InferenceError, NonFiniteScore, Overloaded
from app.inference.images import Decoded, open_picture
from app.inference.rendering import png, to_pixels

# Up to these sizes pictures are decoded and encoded with their batch: larger ones would hold it up.
_SMALL_BYTES: Final = 64 * 1024
_SMALL_PIXELS: Final = 256 * 256

# A picture whose negative has less than half its error was probably taken dark on light instead of light on dark.
_MUCH_LOWER: Final = 0.5

_WARM_UP_RUNS: Final = 3  # TorchScript's executor profiles and then optimises its first calls

_T = TypeVar("_T")


class Row(NamedTuple):
    """One picture's share of a batch.

    Attributes:
        picture: the model's input, and what was done to the picture before.
        reconstruction: (C, H, W) float32.
        png: the same as a PNG file; None where it is large, :meth:`reconstruction_png` makes it then.
        mse: mean squared difference to the input over channels and pixels.
        score: the error that the verdict is decided on.
        queue_s: how long the picture waited for its batch.
        compute_s: how long its batch was worked on.
    """

    picture: Decoded
    reconstruction: torch.Tensor
    png: bytes | None
    mse: float
    score: float
    queue_s: float
    compute_s: float

    def reconstruction_png(self) -> bytes:
        """The reconstruction as a PNG file."""
        return self.png or png(to_pixels(self.reconstruction))


class Scored(NamedTuple):
    """What the model made of one picture.

    Attributes:
        row: what the batch gave for it.
        p_value: conformal p-value of the score, in (0, 1].
        warnings: what was done to the picture before, or looks wrong.
    """

    row: Row
    p_value: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class BatchDone:
    """Told to the engine's observer after each batch."""

    model: str
    size: int
    compute_s: float


class _NotSmall(InferenceError):
    """A small file of a large picture: it cannot be decoded with its batch."""


class _Waiting(NamedTuple):
    """A picture in the queue of its model."""

    content: bytes | Decoded
    done: asyncio.Future[Row | InferenceError]
    since: float


class ServedModel:
    """A loaded bundle with its queue. Replacing a model leaves requests that hold the old one unharmed."""

    def __init__(self, bundle: Bundle, engine: "Engine") -> None:
        self.bundle = bundle
        self._engine = engine
        self._waiting: deque[_Waiting] = deque()
        self._drain: asyncio.Task[None] | None = None
        self._encodes = bundle.spec.height * bundle.spec.width <= _SMALL_PIXELS

    async def run(self, contents: Iterable[bytes | Decoded]) -> list[Row | InferenceError]:
        """Queues pictures for the next batches; cancelling drops those that still wait.

        Args:
            contents: image files, or what was decoded before.

        Returns:
            In the same order, what the model made of each, or why it was refused.
        """
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        waiting = [_Waiting(content, loop.create_future(), now) for content in contents]
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
        try:
            outcomes = await self._engine.compute(lambda: self._work(batch))
        except Exception as error:
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(outcome)
        rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
        if rows:
            self._engine.observe(BatchDone(self.bundle.manifest.name, len(rows), rows[0].compute_s))

    def _work(self, batch: list[_Waiting]) -> list[Row | InferenceError]:
        """In the worker thread: a batch from files to rows."""
        began = time.perf_counter()
        pictures = [self._decoded(waiting.content) for waiting in batch]
        readable = [picture for picture in pictures if isinstance(picture, Decoded)]
        rows = iter(self._forward(readable))
        ended = time.perf_counter()
        return [
            Row(*next(rows), began - waiting.since, ended - began) if isinstance(picture, Decoded) else picture
            for waiting, picture in zip(batch, pictures, strict=True)
        ]

    def _decoded(self, content: bytes | Decoded) -> Decoded | InferenceError:
        if isinstance(content, Decoded):
            return content
        try:
            picture = open_picture(content, max_pixels=self._engine.max_pixels)
            return picture.decode(self.bundle.spec) if picture.pixels <= _SMALL_PIXELS else _NotSmall()
        except InferenceError as refusal:
            return refusal

    def _forward(self, pictures: list[Decoded]) -> Iterable[tuple[Decoded, torch.Tensor, bytes | None, float, float]]:
        if not pictures:
            return ()
        scores = self.bundle.score_batch(torch.stack([picture.tensor for picture in pictures]))
        files = map(png, to_pixels(scores.reconstruction)) if self._encodes else repeat(None, len(pictures))
        return list(zip(pictures, scores.reconstruction, files, scores.mse, scores.score, strict=True))


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
        apart = {index: self._decode(model, file) for index, file in enumerate(files) if len(file) > _SMALL_BYTES}
        together = [index for index in range(len(files)) if index not in apart]
        outcomes = dict(zip(together, await model.run(files[index] for index in together), strict=True))
        apart |= {i: self._decode(model, files[i]) for i, each in outcomes.items() if isinstance(each, _NotSmall)}
        if apart:
            outcomes |= await _run_decoded(model, apart)
        rows = [outcome for outcome in outcomes.values() if isinstance(outcome, Row)]
        doubts = dict(zip(map(id, rows), await _doubts(model, rows), strict=True)) if rows else {}
        ordered = (outcomes[index] for index in range(len(files)))
        return [_judge(model, each, doubts[id(each)]) if isinstance(each, Row) else each for each in ordered]

    async def compute(self, work: Callable[[], _T]) -> _T:
        """Runs work in the thread of forward passes, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._compute, work)

    async def render(self, pixels: int, work: Callable[[], _T]) -> _T:
        """Makes pictures of results: here when they are small, in a thread when large."""
        if pixels <= _SMALL_PIXELS:
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

    def _decode(self, model: ServedModel, file: bytes) -> asyncio.Future[Decoded | InferenceError]:
        """Decodes a large picture in a thread of its own."""

        def decode() -> Decoded | InferenceError:
            try:
                return open_picture(file, max_pixels=self.max_pixels).decode(model.bundle.spec)
            except InferenceError as refusal:
                return refusal

        return asyncio.get_running_loop().run_in_executor(self._pictures, decode)


async def _run_decoded(
    model: ServedModel, decoding: Mapping[int, asyncio.Future[Decoded | InferenceError]]
) -> dict[int, Row | InferenceError]:
    """Waits for pictures and runs those that could be read."""
    decoded = dict(zip(decoding, await _all_of([*decoding.values()]), strict=True))
    readable = {index: picture for index, picture in decoded.items() if isinstance(picture, Decoded)}
    refused = {index: refusal for index, refusal in decoded.items() if isinstance(refusal, InferenceError)}
    return {**refused, **dict(zip(readable, await model.run(readable.values()), strict=True))}


async def _doubts(model: ServedModel, rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """What looks wrong with pictures, judged by their scores; normal ones cost nothing here."""
    lowest, highest = model.bundle.calibration.scores[0], model.bundle.calibration.scores[-1]
    threshold = model.bundle.manifest.threshold
    suspects = [index for index, row in enumerate(rows) if row.score > threshold]
    negatives = await model.run(Decoded(1 - rows[index].picture.tensor, ()) for index in suspects)
    negative_scores = {
        index: negative.score for index, negative in zip(suspects, negatives, strict=True) if isinstance(negative, Row)
    }
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


def _judge(model: ServedModel, row: Row, doubts: tuple[str, ...]) -> Scored | NonFiniteScore:
    try:
        p_value = model.bundle.calibration.p_value(row.score)
    except NonFiniteScore as refusal:
        return refusal
    if not math.isfinite(row.mse):
        return NonFiniteScore(f"the model returned an MSE of {row.mse}")
    return Scored(row, p_value, row.picture.warnings + doubts)


async def _all_of(futures: Sequence[asyncio.Future[_T]]) -> list[_T]:
    """Their results in order. If one fails, or the caller is cancelled, all that are not done are cancelled."""
    try:
        return [await future for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise
