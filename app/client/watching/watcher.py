"""The watcher: takes complete images, scores several at a time, and records and archives one after the other."""

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol, TypeVar

from app.client.api_requests import ScoringOptions
from app.client.clients import AsyncAnomalyClient
from app.client.errors import AllRejected, ClientError, Problem, TooLarge
from app.client.responses import ScoreAnswer, ScoredImage
from app.client.watching.archive import Archive
from app.client.watching.journal import Entry, Journal
from app.client.watching.sources.arrivals import Arrivals, Identity, Image, identify

_FIRST_PAUSE_S: Final = 1.0  # before a step that failed is tried again; doubles
_LONGEST_PAUSE_S: Final = 30.0
_TIMEOUTS: Final = 5  # of the service with one image, before it counts as one that cannot be scored
_NS_PER_S: Final = 10**9
_GATEWAY_TIMEOUT: Final = 504
_MAX_FILE_BYTES: Final = 256 * 2**20  # far above the service's default limit; keeps huge files out of memory

_T = TypeVar("_T")


class Stopped(Exception):
    """The watcher was stopped while a step could not be done; the next run does it."""


class Report(Protocol):
    """Tells people what happens."""

    def scored(self, entry: Entry) -> None:
        """An image has its line in the journal."""

    def trouble(self, text: str) -> None:
        """A step failed and will be tried again, or a file needs attention."""


class Watcher:
    """Scores the images of a folder, which may be those of a camera.

    Args:
        service: the client; retries by itself for a while, and is asked again after that.
        scoring: model and sensitivity.
        arrivals: the images.
        journal: their lines.
        archive: where they go; None: they stay.
        operator: for the journal.
        camera: its name, for the journal; None: the images are those of a folder.
        report: tells what happens.
        concurrency: most images that are scored at a time.
        on_done: called when an image is finished, so that the next can be started.
        stopping: set when the watcher is to end.
    """

    def __init__(
        self,
        service: AsyncAnomalyClient,
        scoring: ScoringOptions,
        arrivals: Arrivals,
        journal: Journal,
        archive: Archive | None,
        *,
        operator: str | None,
        camera: str | None,
        report: Report,
        concurrency: int,
        on_done: Callable[[], None],
        stopping: asyncio.Event,
    ) -> None:
        self._service = service
        self._scoring = scoring
        self._arrivals = arrivals
        self._journal = journal
        self._archive = archive
        self._operator = operator
        self._camera = camera
        self._report = report
        self._concurrency = concurrency
        self._recording = asyncio.Lock()
        self._on_done = on_done
        self._stay = archive is None or archive.keep
        self._known: dict[str, str] = {}  # file → SHA-256 of those that stay in the folder
        self._stopping = stopping
        self._unfinished = False  # a line was written whose image could not be archived: no other may follow it
        self._running: set[asyncio.Task[Entry | None]] = set()
        self._recordings: set[asyncio.Task[Entry | None]] = set()

    @property
    def busy(self) -> int:
        """Number of images in progress."""
        return sum(not task.done() for task in self._running)

    async def recover(self) -> None:
        """Finishes what a run before this one did not: images with a line are archived, and not scored again.

        Raises:
            Stopped: while the disk is full.
            UnusableJournal: the journal has a line of something else.
        """
        last = await asyncio.to_thread(self._read_journal)
        if last is not None:
            image = self._image(last)
            if identify(image.path) == image.identity:
                self._arrivals.taken(image)
                await self._put(image, last)

    def _read_journal(self) -> Entry | None:
        """Marks images that stay in the folder as done. Returns the last entry: only its image may not be archived."""
        entry = None
        for entry in self._journal.entries():
            if self._stay and (image := self._image(entry)).path.exists():
                self._known[entry.file] = entry.sha256
                self._arrivals.taken(image)
        return entry

    def _image(self, entry: Entry) -> Image:
        return Image(self._arrivals.folder / entry.file, Identity(entry.size, entry.modified_ns), settled=True)

    def start(self) -> None:
        """Begins to score images that are complete, as many as may be in progress."""
        for task in [task for task in self._running if task.done()]:
            self._running.remove(task)
            task.result()
        for image in self._arrivals.take(self._concurrency - self.busy):
            task = asyncio.create_task(self._process(image))
            task.add_done_callback(lambda _: self._on_done())
            self._running.add(task)

    async def finish(self) -> list[Entry]:
        """Scores what has arrived, and returns the entries once the images are archived.

        Raises:
            Stopped: the watcher is to end.
        """
        self.start()
        return [entry for entry in await asyncio.gather(*map(asyncio.shield, self._running)) if entry is not None]

    async def stop(self) -> None:
        """Records and archives what is scored, and drops the rest, which the next run scores."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, *self._recordings, return_exceptions=True)

    async def _process(self, image: Image) -> Entry | None:
        """Scores an image and archives it; None if it is not to be scored, or not yet."""
        content = await self._read(image)
        if content is None:
            return None
        file, sha256 = image.path.relative_to(self._arrivals.folder).as_posix(), hashlib.sha256(content).hexdigest()
        if self._known.get(file) == sha256:
            return None  # touched, not changed
        answer = await self._score(content, image.path.name)
        if isinstance(answer, str) and not image.settled:
            self._arrivals.give_back(image)  # unreadable so far: a slow writer may not have finished
            return None
        recording = asyncio.create_task(self._record(image, file, sha256, answer))
        self._recordings.add(recording)
        recording.add_done_callback(self._recordings.discard)
        return await asyncio.shield(recording)

    async def _record(self, image: Image, file: str, sha256: str, answer: ScoreAnswer | str) -> Entry | None:
        """Writes the line, then archives the image; one image at a time, so that only the last can be unfinished."""
        async with self._recording:
            if self._unfinished:
                raise Stopped
            if identify(image.path) != image.identity:
                self._arrivals.look([image.path])  # replaced meanwhile: its successor is scored
                return None
            entry = self._entry(image, file, sha256, answer)
            await self._insist(f"cannot write {self._journal.path}", lambda: self._journal.append(entry))
            self._report.scored(entry)
            if self._stay:
                self._known[file] = sha256
            await self._put(image, entry)
            return entry

    async def _read(self, image: Image) -> bytes | None:
        if image.identity.size > _MAX_FILE_BYTES:
            self._report.trouble(f"{image.path} is larger than {_MAX_FILE_BYTES // 2**20} MiB and stays where it is")
            return None
        try:
            content = await asyncio.to_thread(image.path.read_bytes)
        except OSError as error:
            if identify(image.path) is not None:
                self._report.trouble(f"cannot read {image.path}: {error.strerror or error}")
                self._arrivals.give_back(image)
            return None
        if identify(image.path) != image.identity:
            self._arrivals.look([image.path])
            return None
        return content

    async def _score(self, content: bytes, name: str) -> ScoreAnswer | str:
        """The answer, or why the image is rejected. Waits as long as the service cannot answer."""
        pause, timeouts = _FIRST_PAUSE_S, 0
        while True:
            try:
                return await self._service.score(
                    [content],
                    model=self._scoring.model,
                    false_alarm_rate=self._scoring.false_alarm_rate,
                    threshold=self._scoring.threshold,
                )
            except AllRejected as problem:
                return problem.rejected[0].error.detail
            except TooLarge as problem:
                return problem.detail
            except ClientError as error:
                timeouts += isinstance(error, Problem) and error.status == _GATEWAY_TIMEOUT
                if timeouts == _TIMEOUTS:
                    return f"the service did not finish in time, {_TIMEOUTS} times"
                self._report.trouble(f"{name} waits: {error}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _entry(self, image: Image, file: str, sha256: str, answer: ScoreAnswer | str) -> Entry:
        now = datetime.now().astimezone()
        result = None if isinstance(answer, str) else answer.results[0]
        scored = result if isinstance(result, ScoredImage) else None
        verdict = scored.verdict if scored else "rejected"
        place = None if self._archive is None else self._archive.place(file, f"{now:%Y-%m-%d}", verdict, sha256)
        entry = Entry(
            id=str(uuid.uuid4()),
            time=now.isoformat(timespec="milliseconds"),
            file=file,
            size=image.identity.size,
            modified_ns=image.identity.modified_ns,
            sha256=sha256,
            verdict=verdict,
            operator=self._operator,
            archived=place,
            error=answer if isinstance(answer, str) else None,
            camera=self._camera,
            captured=None if self._camera is None else _time(image.identity.modified_ns),
        )
        return entry if scored is None or isinstance(answer, str) else _with_numbers(entry, scored, answer)

    async def _put(self, image: Image, entry: Entry) -> None:
        """Archives an image that has a line."""
        archive = self._archive
        if archive is None or entry.archived is None:
            return

        def put() -> None:
            try:
                archive.put(image, entry)
            except FileNotFoundError:
                self._report.trouble(f"{image.path} has vanished before it was archived")

        await self._insist(f"cannot archive {image.path}", put)
        if not archive.keep:
            self._arrivals.forget(image)

    async def _insist(self, failure: str, step: Callable[[], _T]) -> _T:
        """Repeats a step on the disk until it succeeds, for example because the disk has room again.

        Raises:
            Stopped: the watcher is to end.
        """
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await asyncio.to_thread(step)
            except OSError as error:
                self._report.trouble(f"{failure}: {error.strerror or error}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                self._unfinished = True
                raise Stopped
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / _NS_PER_S).astimezone().isoformat(timespec="milliseconds")


def _with_numbers(entry: Entry, scored: ScoredImage, answer: ScoreAnswer) -> Entry:
    return replace(
        entry,
        score=scored.score,
        p_value=scored.p_value,
        mse=scored.mse,
        threshold=answer.threshold,
        false_alarm_rate=answer.false_alarm_rate,
        model=answer.model.name,
        version=answer.model.version,
        regions=None if scored.regions is None else [*scored.regions],
        warnings=scored.warnings,
    )
