"""Many picture files through the service: several in one request, several requests at a time, in bounded memory.

Files are looked up as they are needed. What is in memory at any time are the files of the requests under way:
``concurrency`` times one batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.client.answers import RejectedImage, ScoreAnswer, ScoredImage
from app.client.clients import AsyncAnomalyClient
from app.client.errors import AllRejected, Problem, TooLarge
from app.client.finding import identity
from app.client.rows import Row

_BATCH_FILES: Final = 32  # the service's largest forward pass; a quarter of its queue with 4 requests at a time
_BATCH_BYTES: Final = 4 * 2**20
_LARGEST_FILE: Final = 256 * 2**20  # far above what a service takes as shipped; reading on would only fill memory

_TOO_MANY_FILES: Final = "urn:problem-type:too-many-files"
_TOO_SLOW: Final = 504

Loaded = tuple[Path, bytes]
OnRows = Callable[[Sequence[Row]], None]


@dataclass(frozen=True)
class Choice:
    """How to score: with which model, at which rate; ``None`` leaves it to the service."""

    model: str | None
    false_alarm_rate: float | None


async def score_files(
    service: AsyncAnomalyClient, paths: Iterator[Path], choice: Choice, *, concurrency: int, on_rows: OnRows
) -> None:
    """Scores files in batches.

    Args:
        service: where.
        paths: the files, each once.
        choice: how.
        concurrency: requests at a time.
        on_rows: gets the rows of each batch as its answer comes: batches in the order of their answers.

    Raises:
        ClientError: the service cannot go on; rows handed out before stand.
    """

    async def score(loaded: Sequence[Loaded]) -> list[Row]:
        answer = await service.score(
            [data for _, data in loaded], model=choice.model, false_alarm_rate=choice.false_alarm_rate
        )
        return [_row(path, result, answer) for (path, _), result in zip(loaded, answer.results, strict=True)]

    await _run(Batches(paths, max_files=_BATCH_FILES, max_bytes=_BATCH_BYTES), score, concurrency, on_rows)


async def show_files(
    service: AsyncAnomalyClient,
    paths: Iterator[Path],
    choice: Choice,
    *,
    false_alarm_rate: float,
    folder: Path,
    concurrency: int,
    on_rows: OnRows,
) -> None:
    """As ``score_files``, one file per request, and saves what the model saw, rebuilt and erred on.

    Args:
        service: where.
        paths: the files, each once.
        choice: how.
        false_alarm_rate: what the rows say, since these answers do not.
        folder: where the pictures go, below ``normal/`` and ``anomaly/``.
        concurrency: requests at a time.
        on_rows: gets each row, after its picture was written.

    Raises:
        ClientError: the service cannot go on.
        OSError: a picture cannot be written.
    """

    async def show(loaded: Sequence[Loaded]) -> list[Row]:
        ((path, data),) = loaded
        seen = await service.side_by_side(data, model=choice.model, false_alarm_rate=choice.false_alarm_rate)
        await asyncio.to_thread(_save, picture_path(folder, seen.verdict, path), seen.png)
        return [
            Row(
                path=str(path),
                status="scored",
                verdict=seen.verdict,
                score=seen.score,
                threshold=seen.threshold,
                p_value=seen.p_value,
                mse=seen.mse,
                false_alarm_rate=false_alarm_rate,
                model=seen.model.name,
                version=seen.model.version,
            )
        ]

    await _run(Batches(paths, max_files=1, max_bytes=_BATCH_BYTES), show, concurrency, on_rows)


class Batches:
    """Hands out files in groups that one request carries, and learns from refusals how large these may be."""

    def __init__(self, paths: Iterator[Path], *, max_files: int, max_bytes: int) -> None:
        self._paths = paths
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._held: Path | None = None
        self._returned: list[list[Path]] = []

    def take(self) -> list[Path]:
        """The next group; a file above the limit goes alone. Empty: there are no more."""
        if self._returned:
            return self._returned.pop()
        batch: list[Path] = []
        size = 0
        while len(batch) < self._max_files and (path := self._held or next(self._paths, None)) is not None:
            self._held = None
            size += _size(path)
            if batch and size > self._max_bytes:
                self._held = path
                break
            batch.append(path)
        return batch

    def split(self, batch: list[Path], problem: Problem) -> None:
        """Takes a group back that was too much for one request: its halves come next, later groups are smaller."""
        middle = len(batch) // 2
        self._returned += [batch[middle:], batch[:middle]]
        if problem.type == _TOO_MANY_FILES:
            self._max_files = min(self._max_files, middle)
        elif isinstance(problem, TooLarge):
            self._max_bytes = min(self._max_bytes, sum(map(_size, batch)) // 2)


def picture_path(folder: Path, verdict: str, path: Path) -> Path:
    """Where a picture's side-by-side picture goes: the same place below ``folder/verdict``, so that none collide."""
    whole = Path(identity(path))
    below = whole.relative_to(Path.cwd() if whole.is_relative_to(Path.cwd()) else whole.anchor)
    return folder / verdict / below.with_name(below.name + ".png")


async def _run(
    batches: Batches,
    score: Callable[[Sequence[Loaded]], Awaitable[list[Row]]],
    concurrency: int,
    on_rows: OnRows,
) -> None:
    async def work() -> None:
        while batch := batches.take():
            loaded, rows = await asyncio.to_thread(_load, batch)
            try:
                if loaded:
                    rows += await score(loaded)
            except AllRejected as problem:
                rows += [
                    Row(str(path), "rejected", error=each.error.detail)
                    for (path, _), each in zip(loaded, problem.rejected, strict=True)
                ]
            except Problem as problem:
                if len(batch) > 1 and (isinstance(problem, TooLarge) or problem.status == _TOO_SLOW):
                    batches.split(batch, problem)
                    continue
                if not isinstance(problem, TooLarge):
                    raise
                rows += [Row(str(path), "rejected", error=problem.detail) for path, _ in loaded]
            on_rows(rows)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except ExceptionGroup as errors:  # one is enough to tell; the others are likely the same
        raise errors.exceptions[0] from None


def _load(batch: Sequence[Path]) -> tuple[list[Loaded], list[Row]]:
    """Reads files; those that cannot be read as rows."""
    loaded, rows = [], []
    for path in batch:
        try:
            if _size(path) > _LARGEST_FILE:
                raise OSError(f"the file is larger than {_LARGEST_FILE // 2**20} MiB")
            loaded.append((path, path.read_bytes()))
        except OSError as error:
            rows.append(Row(str(path), "rejected", error=error.strerror or str(error)))
    return loaded, rows


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading it will say why
        return 0


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
    )


def _save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
