"""The engine: the queue limits, the memory and the threads that all models of a process share."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Protocol, TypeVar

from app.inference.bundles.bundle import Bundle
from app.inference.errors import Overloaded
from app.inference.images.cost import DecodeCost
from app.inference.images.decoding import decode
from app.inference.images.model_input import DecodedImage, InputSpec
from app.inference.machine import usable_cores
from app.inference.serving.backlog import Backlog
from app.inference.serving.batch_queue import LIGHT_S, CompletedBatch, ServedModel
from app.inference.serving.batch_scorer import QUICK_S, SMALL_PIXELS, BatchScorer
from app.inference.serving.decode_queue import DecodeQueue
from app.inference.serving.memory import Memory
from app.inference.serving.warm_up import Pace, warm_up

_MUCH_MEMORY: Final = 2**40

_T = TypeVar("_T")


class Decode(Protocol):
    """Decodes an image file to a model's input. Called from several threads at once."""

    def __call__(self, file: bytes, spec: InputSpec, /, *, max_pixels: int) -> DecodedImage:
        """The decoded image; raises InferenceError if there is none."""


class Admission:
    """Places in the engine's queue, held by a ``with`` block."""

    def __init__(self, engine: "Engine", model: ServedModel, client: str, images: int, seconds: float) -> None:
        self._engine = engine
        self._model = model
        self._client = client
        self._images = images
        self._seconds = seconds

    def __enter__(self) -> None:
        self._engine.count(self._model, self._client, self._images, self._seconds)

    def __exit__(self, *_: object) -> None:
        self._engine.count(self._model, self._client, -self._images, -self._seconds)


class Engine:
    """Shared by all models of a process.

    Args:
        max_batch: most images in one forward pass; 0: chosen by the model's input size.
        queue_size: most images in progress; :meth:`admit` describes how several models share it.
        max_pixels: the largest width × height that is decoded.
        decode_threads: most large images that are decoded at once.
        decode: decodes one that takes long; as :func:`app.inference.images.decoding.decode`, or in a process. Called
            in a thread.
        decode_s: seconds in which all admitted images should be decoded.
        memory: of the process; None: much more than is needed.
        observe: called on the event loop after every forward pass.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        queue_size: int,
        max_pixels: int,
        decode_threads: int = 2,
        decode: Decode = decode,
        decode_s: float = math.inf,
        memory: Memory | None = None,
        observe: Callable[[CompletedBatch], None] = lambda _: None,
    ) -> None:
        self.max_batch = max_batch
        self.max_pixels = max_pixels
        self.memory = Memory(_MUCH_MEMORY) if memory is None else memory
        self._decode = decode
        self._observer = observe
        self._images = Backlog(queue_size)
        self._decoding = Backlog(decode_s * min(decode_threads, usable_cores()))
        self._large = DecodeQueue(decode_threads, self.memory)
        self._busy: set[ServedModel] = set()
        self._progressed = time.monotonic()
        self._forward = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._image_work = ThreadPoolExecutor(decode_threads, thread_name_prefix="image")

    @property
    def admitted(self) -> int:
        """The number of images in progress."""
        return int(self._images.total)

    def require_room(self, model: ServedModel, images: int = 1, *, client: str = "", seconds: float = 0) -> None:
        """Checks the queue before a request's body is read.

        Raises:
            Overloaded: :meth:`admit` would raise it.
        """
        waiting, decoding = self._images, self._decoding
        if waiting.total + images > waiting.limit and not self._has_share(model, images, client):
            raise Overloaded(
                f"{self.admitted} images are in progress, {waiting.limit} is the limit",
                waiting.seconds_until_room(images),
            )
        if seconds and decoding.total + seconds > decoding.limit and not decoding.has_share(client, seconds):
            raise Overloaded(
                f"images in progress take about {decoding.total:.0f} s to decode, {decoding.limit:.0f} s is the limit",
                decoding.seconds_until_room(seconds),
            )

    def _has_share(self, model: ServedModel, images: int, client: str) -> bool:
        """Whether others have filled the queue: other clients, or other models."""
        waiting = self._images
        if images > waiting.limit:
            return False
        if waiting.has_share(client, images):
            return True
        share = waiting.limit // len(self._busy | {model})
        return self.admitted > model.admitted and (not model.admitted or model.admitted + images <= share)

    def admit(self, model: ServedModel, images: int, *, client: str = "", seconds: float = 0) -> Admission:
        """Reserves places for a request's images; a ``with`` block holds them until the results are rendered.

        A single client and a single model may fill the queue. If other ones have filled it, a client and a model still
        get up to their equal share of the places, and at least one request. The queue is then over its limit until
        images of the others finish. The time to decode the images is limited and shared likewise.

        Args:
            model: scores them.
            images: their number.
            client: who sent them.
            seconds: processor time to decode those that are not decoded with their batch.

        Raises:
            Overloaded: there are not enough places; nothing was started.
        """
        self.require_room(model, images, client=client, seconds=seconds)
        return Admission(self, model, client, images, seconds)

    def count(self, model: ServedModel, client: str, images: int, seconds: float) -> None:
        """Changes the work in progress.

        Args:
            model: the model that scores the images.
            client: who sent them.
            images: the number to add; negative to subtract.
            seconds: to decode them; likewise.
        """
        if not self._images.total:
            self._progressed = time.monotonic()
        self._images.add(client, images)
        if seconds:
            self._decoding.add(client, seconds)
        model.admitted += images
        if model.admitted:
            self._busy.add(model)
        else:
            self._busy.discard(model)

    async def compute(self, work: Callable[[], _T]) -> _T:
        """Runs blocking work in the thread of forward passes, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._forward, work)

    def stalled_s(self) -> float:
        """Seconds since the last batch or large image was finished, while images are in progress; else 0."""
        return time.monotonic() - self._progressed if self._images.total else 0

    def observe(self, batch: CompletedBatch) -> None:
        """Notes that a batch is finished."""
        self._progressed = time.monotonic()
        self._observer(batch)

    async def decode(
        self, model: ServedModel, client: str, cost: DecodeCost, file: bytes, spec: InputSpec | None = None
    ) -> DecodedImage:
        """Decodes a large image when it is the turn of the client and of the model.

        Args:
            model: the model.
            client: who sent the image.
            cost: of decoding it.
            file: the image file.
            spec: what to bring it to; None: the model's input.

        Raises:
            TooMuchMemory, Overloaded: as :meth:`DecodeQueue.turn`.
            InferenceError: the image cannot be decoded.
        """
        # Handing an image to a process takes a millisecond, a tenth of what decoding a quick one does.
        decode_file = decode if cost.seconds <= QUICK_S else self._decode
        work = partial(decode_file, file, spec or model.bundle.spec, max_pixels=self.max_pixels)
        return await self.in_turn(model, client, cost, work)

    async def in_turn(self, model: ServedModel, client: str, cost: DecodeCost, work: Callable[[], _T]) -> _T:
        """Work with a large image in a thread, when it is the turn of the client and of the model.

        Raises:
            TooMuchMemory, Overloaded: as :meth:`DecodeQueue.turn`.
        """
        async with self._large.turn(client, model.bundle.manifest.name, cost):
            try:
                return await asyncio.get_running_loop().run_in_executor(self._image_work, work)
            finally:
                self._progressed = time.monotonic()

    async def coalesce(self) -> None:
        """Holds a request with decoded images for others, as :meth:`DecodeQueue.coalesce`."""
        await self._large.coalesce()

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
            BatchScorer(bundle, max_pixels=self.max_pixels, light=pace.seconds < LIGHT_S),
            max_batch=pace.max_batch,
            compute=self.compute,
            observe=self.observe,
        )

    def close(self) -> None:
        """Shuts the threads down; queued work is dropped."""
        self._forward.shutdown(wait=False, cancel_futures=True)
        self._image_work.shutdown(wait=False, cancel_futures=True)
