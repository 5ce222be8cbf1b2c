"""The engine: admits pictures, decodes them, gathers them into batches, runs the forward passes.

Micro-batching needs no timer: while one batch is worked on, what arrives becomes the next. An idle service
therefore answers at once, a busy one works in full batches. A batch goes all the way at once: the small pictures
are decoded, one forward pass is run and the small reconstructions are encoded, each in one tight loop, which costs a
fraction of the same work strewn between requests. One worker thread does that, or, for light batches, the event loop.
Large pictures pass through a few other threads.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import torch

from app.inference.bundle import Bundle
from app.inference.errors import InferenceError, NonFiniteScore, Overloaded
from app.inference.images import Decoded, open_picture, stack
from app.inference.rendering import png, pngs, to_pixels
from app.inference.usage import Used

# Up to these sizes pictures are decoded and encoded with their batch: larger ones would hold it up.
_SMALL_BYTES: Final = 64 * 1024
_SMALL_PIXELS: Final = 256 * 256

# A picture whose negative has less than half its error was probably taken dark on light instead of light on dark.
_MUCH_LOWER: Final = 0.5

_BELOW_ALL: Final = "the score lies below that of every calibration picture: emptier or simpler than what was learned"
_ABOVE_ALL: Final = "the score lies above that of every calibration picture"

_WARM_UP_RUNS: Final = 3  # TorchScript's executor profiles and then optimises its first calls

# Two threads of Python take turns, and each turn costs: a batch of small PNG files for a model this fast is worked on
# where it is, which serves a quarter more requests, and holds others up no longer than reading as many requests does.
# Other formats can hide work behind a small header.
_LIGHT_S: Final = 0.004
_LIGHT_BYTES: Final = 32 * 1024
_LIGHT_FORMAT: Final = b"\x89PNG"

_T = TypeVar("_T")


class Scored(NamedTuple):
    """What the model made of one picture.

    Attributes:
        original: (C, H, W) float32 in [0, 1], the model's input.
        reconstruction: the same shape.
        png: the reconstruction as a PNG file, if it was made with the batch; else :meth:`reconstruction_png` makes it.
        mse: mean squared difference of the two over channels and pixels.
        score: the error that the verdict is decided on.
        p_value: conformal p-value of the score, in (0, 1].
        warnings: what was done to the picture before, or looks wrong.
        queue_s: how long the picture waited for its batch.
        compute_s: how long its batch was worked on.
    """

    original: torch.Tensor
    reconstruction: torch.Tensor
    png: bytes | None
    mse: float
    score: float
    p_value: float
    warnings: tuple[str, ...]
    queue_s: float
    compute_s: float

    def reconstruction_png(self) -> bytes:
        """The reconstruction as a PNG file."""
        return self.png or png(to_pixels(self.reconstruction))


@dataclass(frozen=True)
class BatchDone:
    """Told to the engine's observer after each batch."""

    model: str
    size: int
    compute_s: float


class _NotSmall(InferenceError):
    """A large picture: it cannot be decoded with its batch."""


class _Group:
    """Pictures that are answered together. They queue in order, so their outcomes come in order."""

    def __init__(self, size: int, *, encode: bool) -> None:
        self.encode = encode
        self.since = time.perf_counter()
        self.done: asyncio.Future[list[Scored | InferenceError]] = asyncio.get_running_loop().create_future()
        self._size = size
        self._outcomes: list[Scored | InferenceError] = []

    def add(self, outcome: Scored | InferenceError) -> None:
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

    Attributes:
        users: requests that use it, from finding the model to the answer.
        admitted: pictures of it that are in work.
    """

    def __init__(self, bundle: Bundle, engine: "Engine", *, light: bool) -> None:
        super().__init__()
        self.bundle = bundle
        self.admitted = 0
        self.large_turns = asyncio.Semaphore(engine.decode_threads)
        self._light = light
        self._engine = engine
        self._waiting: deque[_Waiting] = deque()
        self._drain: asyncio.Task[None] | None = None
        self._encodes = bundle.spec.height * bundle.spec.width <= _SMALL_PIXELS

    async def run(self, contents: Iterable[bytes | Decoded], *, encode: bool = False) -> list[Scored | InferenceError]:
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
        group = _Group(len(pictures), encode=encode and self._encodes)
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
        Without them a batch takes a third of what 32 clients have sent. Other models have their turn meanwhile, too.
        """
        seen, most = 0, self._engine.max_batch
        while seen < min(len(self._waiting), most):
            seen = min(len(self._waiting), most)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._engine.max_batch:
            waiting = self._waiting.popleft()
            if not waiting.group.done.done():  # a request that timed out or went away has cancelled its future
                batch.append(waiting)
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        try:
            if self._is_light(batch):
                outcomes = self._work(batch)
            else:
                outcomes = await self._engine.compute(lambda: self._work(batch))
        except Exception as error:
            for waiting in batch:
                waiting.group.fail(error)
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.group.add(outcome)
        scored = [outcome for outcome in outcomes if isinstance(outcome, Scored)]
        if scored:
            self._engine.observe(BatchDone(self.bundle.manifest.name, len(scored), scored[0].compute_s))

    def _is_light(self, batch: list[_Waiting]) -> bool:
        size = 0
        for waiting in batch:
            content = waiting.content
            if not isinstance(content, bytes) or not content.startswith(_LIGHT_FORMAT):
                return False
            size += len(content)
        return self._light and size <= _LIGHT_BYTES

    def _work(self, batch: list[_Waiting]) -> list[Scored | InferenceError]:
        """A batch from files to answers. Blocks."""
        began = time.perf_counter()
        outcomes = [self._decoded(waiting.content) for waiting in batch]
        readable = [
            (picture, waiting.group)
            for picture, waiting in zip(outcomes, batch, strict=True)
            if isinstance(picture, Decoded)
        ]
        scored = iter(self._scored(readable, began) if readable else ())
        return [next(scored) if isinstance(outcome, Decoded) else outcome for outcome in outcomes]

    def _scored(self, pictures: list[tuple[Decoded, _Group]], began: float) -> list[Scored | InferenceError]:
        images = stack([picture for picture, _ in pictures])
        scores = self.bundle.score_batch(images)
        rebuilt = scores.reconstruction
        shown = [row for row, (_, group) in enumerate(pictures) if group.encode]
        files = iter(pngs(to_pixels(rebuilt if len(shown) == len(rebuilt) else rebuilt[shown])) if shown else ())
        compute_s = time.perf_counter() - began
        outcomes: list[Scored | InferenceError] = []
        rows = zip(pictures, images.unbind(), rebuilt.unbind(), scores.mse, scores.score, strict=True)
        for (picture, group), original, reconstruction, mse, score in rows:
            file, queue_s = next(files) if group.encode else None, began - group.since
            try:
                p_value = self._p_value(mse, score)
            except NonFiniteScore as refusal:
                outcomes.append(refusal)
                continue
            warnings = picture.warnings + self._doubts(score)
            outcomes.append(Scored(original, reconstruction, file, mse, score, p_value, warnings, queue_s, compute_s))
        return outcomes

    def _decoded(self, content: bytes | Decoded) -> Decoded | InferenceError:
        if isinstance(content, Decoded):
            return content
        if len(content) > _SMALL_BYTES:
            return _NotSmall()
        try:
            picture = open_picture(content, max_pixels=self._engine.max_pixels)
            return picture.decode(self.bundle.spec) if picture.pixels <= _SMALL_PIXELS else _NotSmall()
        except InferenceError as refusal:
            return refusal

    def _p_value(self, mse: float, score: float) -> float:
        if not math.isfinite(mse):
            raise NonFiniteScore(f"the model returned an MSE of {mse}")
        return self.bundle.calibration.p_value(score)

    def _doubts(self, score: float) -> tuple[str, ...]:
        known = self.bundle.calibration.scores
        return (_BELOW_ALL,) if score < known[0] else (_ABOVE_ALL,) if score > known[-1] else ()


class Admission:
    """Places in the engine's queue, held by a ``with`` block."""

    def __init__(self, engine: "Engine", model: ServedModel, pictures: int) -> None:
        self._engine = engine
        self._model = model
        self._pictures = pictures

    def __enter__(self) -> None:
        self._engine.take(self._model, self._pictures)

    def __exit__(self, *_: object) -> None:
        self._engine.take(self._model, -self._pictures)


class Engine:
    """Shared by all models of a process.

    Args:
        max_batch: pictures in one forward pass at most.
        queue_size: pictures admitted at a time; one more is refused. See :meth:`admit` for several models.
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
        self.decode_threads = decode_threads
        self._busy: set[ServedModel] = set()
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._pictures = ThreadPoolExecutor(decode_threads, thread_name_prefix="picture")

    @property
    def is_behind(self) -> bool:
        """Whether more pictures are in work than go into one batch."""
        return self.admitted > self.max_batch

    def require_room(self, model: ServedModel, pictures: int = 1) -> None:
        """Refuses early, before a body is read, what would be refused anyway.

        Raises:
            Overloaded: as :meth:`admit`.
        """
        if self.admitted + pictures <= self.queue_size:
            return
        share = self.queue_size // len(self._busy | {model})
        if self.admitted > model.admitted and (not model.admitted or model.admitted + pictures <= share):
            return
        raise Overloaded(f"{self.admitted} pictures are in work, {self.queue_size} is the limit")

    def admit(self, model: ServedModel, pictures: int) -> "Admission":
        """Places for a request's pictures, held by a ``with`` block while they are decoded, scored and answered.

        One model alone may fill the queue. Where others have filled it, a model still finds room up to its equal share
        of the places, and for one request in any case: who came first gives way as its own pictures are done.

        Raises:
            Overloaded: the places left do not suffice; nothing was started.
        """
        self.require_room(model, pictures)
        return Admission(self, model, pictures)

    def take(self, model: ServedModel, pictures: int) -> None:
        """Notes that so many pictures more are in work."""
        self.admitted += pictures
        model.admitted += pictures
        if model.admitted:
            self._busy.add(model)
        else:
            self._busy.discard(model)

    async def score_files(
        self, model: ServedModel, files: Sequence[bytes], *, encode: bool = False
    ) -> list[Scored | InferenceError]:
        """Scores image files; the answers stand in the files' order, a refused one as its exception."""
        outcomes = await model.run(files, encode=encode)
        large = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, _NotSmall)]
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
        """Makes pictures of results: here when they are small, in a thread when large."""
        if pixels <= _SMALL_PIXELS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pictures, work)

    async def serve(self, bundle: Bundle) -> ServedModel:
        """Warms a bundle up, for every batch size that matters, and gives it a queue."""

        def warm_up(size: int) -> float:
            """Returns the seconds of a forward pass, the least of a few: others may be at work meanwhile."""
            seconds = []
            for _ in range(_WARM_UP_RUNS):
                began = time.perf_counter()
                bundle.score_batch(torch.zeros(size, *bundle.spec.shape))
                seconds.append(time.perf_counter() - began)
            return min(seconds)

        # Not in the thread of forward passes: it goes on with the other models.
        seconds = await asyncio.to_thread(lambda: [warm_up(size) for size in (1, 2, self.max_batch)])
        return ServedModel(bundle, self, light=seconds[-1] < _LIGHT_S)

    def close(self) -> None:
        """Lets the threads go; queued work is dropped."""
        self._compute.shutdown(wait=False, cancel_futures=True)
        self._pictures.shutdown(wait=False, cancel_futures=True)

    async def _score_large(
        self, model: ServedModel, files: Sequence[bytes], outcomes: list[Scored | InferenceError], large: list[int]
    ) -> None:
        """Decodes large pictures in threads of their own, then scores them with the others."""

        def decode(file: bytes) -> Decoded | InferenceError:
            try:
                return open_picture(file, max_pixels=self.max_pixels).decode(model.bundle.spec)
            except InferenceError as refusal:
                return refusal

        async def in_turn(file: bytes) -> Decoded | InferenceError:
            async with model.large_turns:  # one model's pictures do not fill the threads' queue before another's
                return await asyncio.get_running_loop().run_in_executor(self._pictures, decode, file)

        pictures = await _all_of([asyncio.ensure_future(in_turn(files[index])) for index in large])
        decoded = [picture for picture in pictures if isinstance(picture, Decoded)]
        scored = iter(await model.run(decoded))
        for index, picture in zip(large, pictures, strict=True):
            outcomes[index] = next(scored) if isinstance(picture, Decoded) else picture


async def _look_at_negatives(model: ServedModel, outcomes: list[Scored | InferenceError], suspects: list[int]) -> None:
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
