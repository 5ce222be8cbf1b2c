"""Scores many image files with bounded memory: several files per request, several requests at a time.

Paths are read from an iterator on demand. At any time, memory holds at most the files of ``concurrency`` batches.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from app.client.api_requests import ScoringOptions
from app.client.clients import AsyncAnomalyClient
from app.client.errors import AllRejected, Problem, TooLarge
from app.client.responses import RejectedImage, ScoreAnswer, ScoredImage
from app.client.runs.drawing import NotDrawable, draw_boxes
from app.client.runs.file_search import path_key
from app.client.runs.rows import Row

# The service's default batch size for larger images; 4 requests at a time fill half of its default queue.
_BATCH_FILES: Final = 32
_BATCH_BYTES: Final = 4 * 2**20
_MAX_FILE_BYTES: Final = 256 * 2**20  # far above the service's default limit; keeps huge files out of memory

_TOO_MANY_FILES: Final = "urn:problem-type:too-many-files"
_GATEWAY_TIMEOUT: Final = 504

LoadedFile = tuple[Path, bytes]
ScoreBatch = Callable[[Sequence[LoadedFile]], Awaitable[list[Row]]]
OnRows = Callable[[Sequence[Row]], None]


async def score_files(
    service: AsyncAnomalyClient,
    paths: Iterator[Path],
    options: ScoringOptions,
    *,
    concurrency: int,
    on_rows: OnRows,
    save_to: Path | None = None,
) -> None:
    """Scores files in batches.

    Args:
        service: the client of the service.
        paths: the files, each once.
        options: model, and false-alarm rate or threshold.
        concurrency: number of concurrent requests.
        on_rows: called with the rows of each batch when its response arrives, so batches may be out of order.
        save_to: folder for a picture of each image that was scored, in ``normal/`` and ``anomaly/``; None: none.

    Raises:
        ClientError: a request failed for good; rows already passed to ``on_rows`` stay valid.
        OSError: a picture cannot be written.
    """

    async def score(files: Sequence[LoadedFile]) -> list[Row]:
        answer = await service.score([data for _, data in files], **asdict(options))
        for (path, data), result in zip(files, answer.results, strict=True):
            if save_to and isinstance(result, ScoredImage):
                await _save_picture(service, picture_path(save_to, result.verdict, path), data, result, options)
        return [_row(path, result, answer) for (path, _), result in zip(files, answer.results, strict=True)]

    await _score_batches(Batches(paths, max_files=_BATCH_FILES, max_bytes=_BATCH_BYTES), score, concurrency, on_rows)


async def _save_picture(
    service: AsyncAnomalyClient, path: Path, image: bytes, result: ScoredImage, options: ScoringOptions
) -> None:
    """Saves the image at its own size with the boxes of its regions; else the picture that the service draws."""
    try:
        if result.regions is None:
            raise NotDrawable("the model has no map")
        png = await asyncio.to_thread(draw_boxes, image, [region.box for region in result.regions])
    except NotDrawable:
        png = (await service.overlay(image, **asdict(options))).png
    await asyncio.to_thread(_save, path, png)


class Batches:
    """Groups files into batches of one request each, and lowers the limits when a batch was too large."""

    def __init__(self, paths: Iterator[Path], *, max_files: int, max_bytes: int) -> None:
        self._paths = paths
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._next_path: Path | None = None
        self._split: list[list[Path]] = []

    def take(self) -> list[Path]:
        """Returns the next batch, empty at the end. A file above the byte limit is a batch of its own."""
        if self._split:
            return self._split.pop()
        batch: list[Path] = []
        size = 0
        while len(batch) < self._max_files and (path := self._next_path or next(self._paths, None)) is not None:
            self._next_path = None
            size += _size(path)
            if batch and size > self._max_bytes:
                self._next_path = path
                break
            batch.append(path)
        return batch

    def split(self, batch: list[Path], problem: Problem) -> None:
        """Queues both halves of a batch that was too large as the next batches, and makes later batches smaller."""
        middle = len(batch) // 2
        self._split += [batch[middle:], batch[:middle]]
        if problem.type == _TOO_MANY_FILES:
            self._max_files = min(self._max_files, middle)
        elif isinstance(problem, TooLarge):
            self._max_bytes = min(self._max_bytes, sum(map(_size, batch)) // 2)


def picture_path(folder: Path, verdict: str, path: Path) -> Path:
    """Where to save the picture of an image: its own relative path under ``folder/verdict``, so that none collide."""
    absolute = Path(path_key(path))
    relative = absolute.relative_to(Path.cwd() if absolute.is_relative_to(Path.cwd()) else absolute.anchor)
    return folder / verdict / relative.with_name(relative.name + ".png")


async def _score_batches(batches: Batches, score: ScoreBatch, concurrency: int, on_rows: OnRows) -> None:
    async def work() -> None:
        while batch := batches.take():
            files, rows = await asyncio.to_thread(_load, batch)
            try:
                if files:
                    rows += await score(files)
            except AllRejected as problem:
                rows += [
                    _rejected(path, rejection.error.detail)
                    for (path, _), rejection in zip(files, problem.rejected, strict=True)
                ]
            except Problem as problem:
                if len(batch) > 1 and (isinstance(problem, TooLarge) or problem.status == _GATEWAY_TIMEOUT):
                    batches.split(batch, problem)
                    continue
                if not isinstance(problem, TooLarge):
                    raise
                rows += [_rejected(path, problem.detail) for path, _ in files]
            on_rows(rows)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except ExceptionGroup as errors:  # errors of concurrent requests usually have the same cause
        raise errors.exceptions[0] from None


def _load(batch: Sequence[Path]) -> tuple[list[LoadedFile], list[Row]]:
    """Reads files; returns their contents, and a row for each file that cannot be read."""
    files, unreadable = [], []
    for path in batch:
        try:
            if _size(path) > _MAX_FILE_BYTES:
                raise OSError(f"the file is larger than {_MAX_FILE_BYTES // 2**20} MiB")
            files.append((path, path.read_bytes()))
        except OSError as error:
            unreadable.append(_rejected(path, error.strerror or str(error)))
    return files, unreadable


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reported when the file is read
        return 0


def _rejected(path: Path, reason: str) -> Row:
    return Row(str(path), "rejected", error=reason)


def _row(path: Path, result: ScoredImage | RejectedImage, answer: ScoreAnswer) -> Row:
    if isinstance(result, RejectedImage):
        return Row(
            str(path),
            "rejected",
            false_alarm_rate=answer.false_alarm_rate,
            model=answer.model.name,
            version=answer.model.version,
            error=result.error.detail,
        )
    return Row(
        path=str(path),
        status="scored",
        verdict=result.verdict,
        score=result.score,
        threshold=answer.threshold,
        p_value=result.p_value,
        mse=result.mse,
        false_alarm_rate=answer.false_alarm_rate,
        model=answer.model.name,
        version=answer.model.version,
        warnings=result.warnings,
        boxes=None if result.regions is None else tuple(region.box for region in result.regions),
        out_of_scope=result.out_of_scope,
    )


def _save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
