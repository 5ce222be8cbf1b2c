"""The engine, which the models of a process share: it admits images, decodes large ones aside, has the threads."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import torch

from app.inference.bundles.bundle import Bundle
from app.inference.errors import InferenceError, Overloaded
from app.inference.images.decoding import Decoded, open_image
from app.inference.serving.batch_queue import LIGHT_S, CompletedBatch, ServedModel
from app.inference.serving.batch_scorer import SMALL_PIXELS, Large, Outcome, Scored, Scorer

# An image whose negative has less than half its error was probably taken dark on light instead of light on dark.
_MUCH_LOWER: Final = 0.5

_WARM_UP_RUNS: Final = 3  # TorchScript's executor profiles and then optimises its first calls

# Small images share what a forward pass costs beside them, the more the better; of large ones, which cost far more
# themselves, every further one takes memory.
SMALL_BATCH, LARGE_BATCH = 64, 32
_SMALL_VALUES: Final = 64 * 64

_T = TypeVar("_T")


class Admission:
    """Places in the engine's queue, held by a ``with`` block."""

    def __init__(self, engine: "Engine", model: ServedModel, images: int) -> None:
        self._engine = engine
        self._model = model
        self._images = images

    def __enter__(self) -> None:
        self._engine.take(self._model, self._images)

    def __exit__(self, *_: object) -> None:
        self._engine.take(self._model, -self._images)


class Engine:
    """Shared by all models of a process.

    Args:
        max_batch: images in one forward pass at most; 0: as many as pay for images of the model's size.
        queue_size: images admitted at a time; one more is refused. See :meth:`admit` for several models.
        max_pixels: the largest width × height that is decoded.
        decode_threads: how many large images are decoded at once.
        observe: called on the event loop after every forward pass.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        queue_size: int,
        max_pixels: int,
        decode_threads: int = 2,
        observe: Callable[[CompletedBatch], None] = lambda _: None,
    ) -> None:
        self.max_batch = max_batch
        self.queue_size = queue_size
        self.max_pixels = max_pixels
        self.observe = observe
        self.admitted = 0
        self._decode_threads = decode_threads
        self._busy: set[ServedModel] = set()
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._images = ThreadPoolExecutor(decode_threads, thread_name_prefix="image")

    def require_room(self, model: ServedModel, images: int = 1) -> None:
        """Refuses early, before a body is read, what would be refused anyway.

        Raises:
            Overloaded: as :meth:`admit`.
        """
        if self.admitted + images <= self.queue_size:
            return
        share = self.queue_size // len(self._busy | {model})
        if self.admitted > model.admitted and (not model.admitted or model.admitted + images <= share):
            return
        raise Overloaded(f"{self.admitted} images are in work, {self.queue_size} is the limit")

    def admit(self, model: ServedModel, images: int) -> "Admission":
        """Places for a request's images, held by a ``with`` block while they are decoded, scored and answered.

        One model alone may fill the queue. Where others have filled it, a model still finds room up to its equal share
        of the places, and for one request in any case: who came first gives way as its own images are done.

        Raises:
            Overloaded: the places left do not suffice; nothing was started.
        """
        self.require_room(model, images)
        return Admission(self, model, images)

    def take(self, model: ServedModel, images: int) -> None:
        """Notes that so many images more are in work."""
        self.admitted += images
        model.admitted += images
        if model.admitted:
            self._busy.add(model)
        else:
            self._busy.discard(model)

    async def score_files(self, model: ServedModel, files: Sequence[bytes], *, encode: bool = False) -> list[Outcome]:
        """Scores image files; the answers stand in the files' order, a refused one as its exception."""
        outcomes = await model.run(files, encode=encode)
        large = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Large)]
        if large:
            await self._score_large(model, files, outcomes, large)
        threshold = model.bundle.manifest.threshold
        suspects = [
            index for index, outcome in enumerate(outcomes) if isinstance(outcome, Scored) and outcome.score > threshold
        ]
        if suspects:
            await _look_at_negatives(model, outcomes, suspects)
        return outcomes

    async def compute(self, work: Callable[[], _T]) -> _T:
        """Runs work in the thread of forward passes, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._compute, work)

    async def render(self, pixels: int, work: Callable[[], _T]) -> _T:
        """Makes images of results: here when they are small, in a thread when large."""
        if pixels <= SMALL_PIXELS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._images, work)

    async def serve(self, bundle: Bundle) -> ServedModel:
        """Warms a bundle up, for every batch size that matters, and gives it a queue."""
        max_batch = self.max_batch or (SMALL_BATCH if math.prod(bundle.spec.shape) <= _SMALL_VALUES else LARGE_BATCH)

        def warm_up(size: int) -> float:
            """Returns the seconds of a forward pass, the least of a few: others may be at work meanwhile."""
            seconds = []
            for _ in range(_WARM_UP_RUNS):
                began = time.perf_counter()
                bundle.score_batch(torch.zeros(size, *bundle.spec.shape))
                seconds.append(time.perf_counter() - began)
            return min(seconds)

        # Not in the thread of forward passes: it goes on with the other models.
        seconds = await asyncio.to_thread(lambda: [warm_up(size) for size in (1, 2, max_batch)])
        return ServedModel(
            Scorer(bundle, max_pixels=self.max_pixels),
            max_batch=max_batch,
            large_at_once=self._decode_threads,
            light=seconds[-1] < LIGHT_S,
            compute=self.compute,
            observe=self.observe,
        )

    def close(self) -> None:
        """Lets the threads go; queued work is dropped."""
        self._compute.shutdown(wait=False, cancel_futures=True)
        self._images.shutdown(wait=False, cancel_futures=True)

    async def _score_large(
        self, model: ServedModel, files: Sequence[bytes], outcomes: list[Outcome], large: list[int]
    ) -> None:
        """Decodes large images in threads of their own, then scores them with the others."""

        def decode(file: bytes) -> Decoded | InferenceError:
            try:
                return open_image(file, max_pixels=self.max_pixels).decode(model.bundle.spec)
            except InferenceError as refusal:
                return refusal

        async def in_turn(file: bytes) -> Decoded | InferenceError:
            async with model.large_turns:  # one model's images do not fill the threads' queue before another's
                return await asyncio.get_running_loop().run_in_executor(self._images, decode, file)

        images = await _all_of([asyncio.ensure_future(in_turn(files[index])) for index in large])
        decoded = [image for image in images if isinstance(image, Decoded)]
        scored = iter(await model.run(decoded))
        for index, image in zip(large, images, strict=True):
            outcomes[index] = next(scored) if isinstance(image, Decoded) else image


async def _look_at_negatives(model: ServedModel, outcomes: list[Outcome], suspects: list[int]) -> None:
    """Warns where an anomaly's negative has far less error."""
    scored = [outcome for outcome in map(outcomes.__getitem__, suspects) if isinstance(outcome, Scored)]
    negatives = await model.run(Decoded(1 - each.original, ()) for each in scored)
    for index, positive, negative in zip(suspects, scored, negatives, strict=True):
        if isinstance(negative, Scored) and negative.score < _MUCH_LOWER * positive.score:
            doubt = f"looks inverted: its negative would score {negative.score:.4g}"
            outcomes[index] = positive._replace(warnings=(*positive.warnings, doubt))


async def _all_of(futures: Sequence[asyncio.Future[_T]]) -> list[_T]:
    """Their results in order. If one fails, or the caller is cancelled, all that are not done are cancelled."""
    try:
        return [await future for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise
