"""The engine: admits pictures, decodes them, gathers them into batches, runs the forward passes.

Micro-batching needs no timer: while one forward pass runs, what arrives becomes the next batch. An idle
service therefore answers at once, a busy one works in full batches. All of it runs on one event loop;
forward passes share one worker thread, large pictures are decoded and encoded in a few others.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import torch

from app.inference.bundle import BatchScores, Bundle
from app.inference.errors import InferenceError, NonFiniteScore, Overloaded
from app.inference.images import Decoded, open_picture

# Below these a thread switch costs more than the work itself.
_INLINE_BYTES: Final = 64 * 1024
_INLINE_PIXELS: Final = 256 * 256

# A picture whose negative has less than half its error was probably taken dark on light instead of light on dark.
_MUCH_LOWER: Final = 0.5

_WARM_UP_RUNS: Final = 3  # TorchScript's executor profiles and then optimises its first calls

_T = TypeVar("_T")


@dataclass(frozen=True)
class Scored:
    """What the model made of one picture.

    Attributes:
        original: (C, H, W) float32 in [0, 1], the model's input.
        reconstruction: the same shape.
        mse: mean squared difference of the two over channels and pixels.
        score: the error that the verdict is decided on.
        p_value: conformal p-value of the score, in (0, 1].
        warnings: what was done to the picture before.
    """

    original: torch.Tensor
    reconstruction: torch.Tensor
    mse: float
    score: float
    p_value: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class BatchDone:
    """Told to the engine's observer after each forward pass."""

    model: str
    size: int
    compute_s: float


@dataclass(frozen=True)
class _Row:
    """One picture's share of a batch."""

    reconstruction: torch.Tensor
    mse: float
    score: float


class ServedModel:
    """A loaded bundle with its queue. Replacing a model leaves requests that hold the old one unharmed."""

    def __init__(self, bundle: Bundle, engine: "Engine") -> None:
        self.bundle = bundle
        self._engine = engine
        self._waiting: deque[tuple[torch.Tensor, asyncio.Future[_Row]]] = deque()
        self._drain: asyncio.Task[None] | None = None

    async def forward(self, image: torch.Tensor) -> _Row:
        """Queues one (C, H, W) picture for the next batch; cancelling drops it from the queue."""
        done: asyncio.Future[_Row] = asyncio.get_running_loop().create_future()
        self._waiting.append((image, done))
        if self._drain is None:
            self._drain = asyncio.create_task(self._run_batches())
        return await done

    async def _run_batches(self) -> None:
        try:
            while batch := self._next_batch():
                await self._run(batch)
        finally:
            self._drain = None

    def _next_batch(self) -> list[tuple[torch.Tensor, asyncio.Future[_Row]]]:
        batch: list[tuple[torch.Tensor, asyncio.Future[_Row]]] = []
        while self._waiting and len(batch) < self._engine.max_batch:
            image, done = self._waiting.popleft()
            if not done.done():  # a request that timed out or went away has cancelled its future
                batch.append((image, done))
        return batch

    async def _run(self, batch: list[tuple[torch.Tensor, asyncio.Future[_Row]]]) -> None:
        began = time.perf_counter()
        try:
            scores = await self._engine.compute(lambda: self._forward([image for image, _ in batch]))
        except Exception as error:
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
            return
        for row, (_, done) in enumerate(batch):
            if not done.done():
                done.set_result(_Row(scores.reconstruction[row], scores.mse[row], scores.score[row]))
        self._engine.observe(BatchDone(self.bundle.manifest.name, len(batch), time.perf_counter() - began))

    def _forward(self, images: Sequence[torch.Tensor]) -> BatchScores:
        return self.bundle.score_batch(torch.stack(list(images)))


class Engine:
    """Shared by all models of a process.

    Args:
        max_batch: pictures in one forward pass at most.
        queue_size: pictures admitted at a time; one more is refused.
        max_pixels: the largest width × height that is decoded.
        decode_threads: how many large pictures are decoded at once.
        observe: called on the event loop after every forward pass.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        queue_size: int,
        max_pixels: int,
        decode_threads: int = 2,
        observe: Callable[[BatchDone], None] = lambda _: None,
    ) -> None:
        self.max_batch = max_batch
        self.queue_size = queue_size
        self.max_pixels = max_pixels
        self.observe = observe
        self.admitted = 0
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._pictures = ThreadPoolExecutor(decode_threads, thread_name_prefix="picture")

    @contextmanager
    def admit(self, pictures: int) -> Iterator[None]:
        """Holds places for a request's pictures while they are decoded, scored and answered.

        Raises:
            Overloaded: the places left do not suffice; nothing was started.
        """
        if self.admitted + pictures > self.queue_size:
            raise Overloaded(f"{self.admitted} pictures are in work, {self.queue_size} is the limit")
        self.admitted += pictures
        try:
            yield
        finally:
            self.admitted -= pictures

    async def score_files(self, model: ServedModel, files: Sequence[bytes]) -> list[Scored | InferenceError]:
        """Scores image files; the answers stand in the files' order, a refused one as its exception."""
        if len(files) == 1:
            return [await self._score_or_refusal(model, files[0])]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._score_or_refusal(model, data)) for data in files]
        return [task.result() for task in tasks]

    async def score_file(self, model: ServedModel, data: bytes) -> Scored:
        """Scores one image file.

        Raises:
            UnreadableImage, TooManyPixels: the file is refused.
            NonFiniteScore: the model gave no usable score.
        """
        decoded = await self._decode(model, data)
        row = await model.forward(decoded.tensor)
        if not math.isfinite(row.mse):
            raise NonFiniteScore(f"the model returned an MSE of {row.mse}")
        p_value = model.bundle.calibration.p_value(row.score)
        warnings = decoded.warnings + await self._doubts(model, decoded.tensor, row.score)
        return Scored(decoded.tensor, row.reconstruction, row.mse, row.score, p_value, warnings)

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

    async def _score_or_refusal(self, model: ServedModel, data: bytes) -> Scored | InferenceError:
        try:
            return await self.score_file(model, data)
        except InferenceError as refusal:
            return refusal

    async def _doubts(self, model: ServedModel, image: torch.Tensor, score: float) -> tuple[str, ...]:
        """What looks wrong with a picture, judged by its score; normal pictures cost nothing here."""
        scores = model.bundle.calibration.scores
        if score < scores[0]:
            return ("the score lies below that of every calibration picture: emptier or simpler than what was learned",)
        if score <= model.bundle.manifest.threshold:
            return ()
        doubts: list[str] = []
        if score > scores[-1]:
            doubts.append("the score lies above that of every calibration picture")
        negative = await model.forward(1 - image)
        if negative.score < _MUCH_LOWER * score:
            doubts.append(f"looks inverted: its negative would score {negative.score:.4g}")
        return tuple(doubts)

    async def _decode(self, model: ServedModel, data: bytes) -> Decoded:
        spec = model.bundle.spec
        if len(data) <= _INLINE_BYTES:
            picture = open_picture(data, max_pixels=self.max_pixels)
            if picture.pixels <= _INLINE_PIXELS:
                return picture.decode(spec)
        return await asyncio.get_running_loop().run_in_executor(
            self._pictures, lambda: open_picture(data, max_pixels=self.max_pixels).decode(spec)
        )
