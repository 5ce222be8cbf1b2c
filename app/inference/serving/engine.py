"""The engine: the queue limit and the threads that all models of a process share."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.inference.bundles.bundle import Bundle
from app.inference.errors import Overloaded
from app.inference.serving.batch_queue import LIGHT_S, CompletedBatch, ServedModel
from app.inference.serving.batch_scorer import SMALL_PIXELS, BatchScorer
from app.inference.serving.warm_up import Pace, warm_up

_T = TypeVar("_T")


class Admission:
    """Places in the engine's queue, held by a ``with`` block."""

    def __init__(self, engine: "Engine", model: ServedModel, images: int) -> None:
        self._engine = engine
        self._model = model
        self._images = images

    def __enter__(self) -> None:
        self._engine.count(self._model, self._images)

    def __exit__(self, *_: object) -> None:
        self._engine.count(self._model, -self._images)


class Engine:
    """Shared by all models of a process.

    Args:
        max_batch: most images in one forward pass; 0: chosen by the model's input size.
        queue_size: most images in progress; :meth:`admit` describes how several models share it.
        max_pixels: the largest width × height that is decoded.
        decode_threads: most large images that are decoded at once.
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
        self._forward = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._image_work = ThreadPoolExecutor(decode_threads, thread_name_prefix="image")

    def require_room(self, model: ServedModel, images: int = 1) -> None:
        """Checks the queue before a request's body is read.

        Raises:
            Overloaded: :meth:`admit` would raise it.
        """
        if self.admitted + images <= self.queue_size:
            return
        share = self.queue_size // len(self._busy | {model})
        if self.admitted > model.admitted and (not model.admitted or model.admitted + images <= share):
            return
        raise Overloaded(f"{self.admitted} images are in progress, {self.queue_size} is the limit")

    def admit(self, model: ServedModel, images: int) -> Admission:
        """Reserves places for a request's images; a ``with`` block holds them until the results are rendered.

        A single model may fill the queue. If other models have filled it, a model still gets up to its equal share of
        the places, and at least one request. The queue is then over its limit until images of the others finish.

        Raises:
            Overloaded: there are not enough places; nothing was started.
        """
        self.require_room(model, images)
        return Admission(self, model, images)

    def count(self, model: ServedModel, images: int) -> None:
        """Changes the number of images in progress.

        Args:
            model: the model that scores them.
            images: the number to add; negative to subtract.
        """
        self.admitted += images
        model.admitted += images
        if model.admitted:
            self._busy.add(model)
        else:
            self._busy.discard(model)

    async def compute(self, work: Callable[[], _T]) -> _T:
        """Runs blocking work in the thread of forward passes, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._forward, work)

    async def decode(self, model: ServedModel, work: Callable[[], _T]) -> _T:
        """Decodes a large image in a thread. Images of one model cannot delay those of another by much."""
        async with model.large_turns:
            return await asyncio.get_running_loop().run_in_executor(self._image_work, work)

    async def render(self, pixels: int, work: Callable[[], _T]) -> _T:
        """Encodes results: on the event loop if there are few pixels, else in a thread."""
        if pixels <= SMALL_PIXELS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._image_work, work)

    async def serve(
        self, bundle: Bundle, run: Callable[[Callable[[], Pace]], Awaitable[Pace]] = asyncio.to_thread
    ) -> ServedModel:
        """Warms a bundle up for the relevant batch sizes and returns it with a queue of its own.

        Args:
            bundle: the model.
            run: runs blocking work, but not in the thread of forward passes, which continues with the other models.
        """
        pace = await run(lambda: warm_up(bundle, self.max_batch))
        return ServedModel(
            BatchScorer(bundle, max_pixels=self.max_pixels),
            max_batch=pace.max_batch,
            large_at_once=self._decode_threads,
            light=pace.seconds < LIGHT_S,
            compute=self.compute,
            observe=self.observe,
        )

    def close(self) -> None:
        """Shuts the threads down; queued work is dropped."""
        self._forward.shutdown(wait=False, cancel_futures=True)
        self._image_work.shutdown(wait=False, cancel_futures=True)
