"""The journal: JSON Lines with everything that an audit needs, one line per image."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from app.files.writing import append_lines

if sys.platform != "win32":
    import fcntl


class UnusableJournal(Exception):
    """Lines cannot be appended to the file; the message gives the reason."""


@dataclass(frozen=True)
class Entry:
    """One image and its verdict.

    Attributes:
        id: of the verdict, random.
        time: of the answer, ISO 8601 with the offset from UTC.
        file: relative to the watched folder, with ``/``; the name of a camera's picture.
        size: in bytes.
        modified_ns: time of modification in nanoseconds since 1970.
        sha256: of the file, in hexadecimal.
        error: why the image was rejected.
        regions: as in the answer of ``POST /score``; None if the service gave none.
        operator: who ran the watcher.
        archived: relative to the archive, with ``/``; None without an archive.

        camera: the name of the camera; None for images of a folder.
        captured: when the camera's picture was received, like ``time``.

    The other attributes are those of ``POST /score``; None for rejected images.
    """

    id: str
    time: str
    file: str
    size: int
    modified_ns: int
    sha256: str
    verdict: Literal["normal", "anomaly", "rejected"]
    operator: str | None
    archived: str | None
    score: float | None = None
    p_value: float | None = None
    mse: float | None = None
    threshold: float | None = None
    false_alarm_rate: float | None = None
    model: str | None = None
    version: str | None = None
    regions: list[Any] | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    camera: str | None = None
    captured: str | None = None

    def to_line(self) -> bytes:
        """The entry as a line of JSON."""
        return (json.dumps(asdict(self), ensure_ascii=False) + "\n").encode(errors="backslashreplace")

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Parses a line; fields that a later version may add are ignored.

        Raises:
            ValueError, KeyError, TypeError: the line is not an entry.
        """
        document = json.loads(line)
        values = {name: document[name] for name in _NAMES if name in document}
        return cls(**{**values, "warnings": tuple(values.get("warnings", ()))})


_NAMES: Final = tuple(field.name for field in fields(Entry))


class Journal:
    """A journal, open for appending and locked against other watchers.

    Raises:
        UnusableJournal: another watcher has it, or it is not a journal.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._lock()
            self._remove_cut_line()
        except BaseException:
            self._file.close()
            raise

    def append(self, entry: Entry) -> None:
        """Appends a line that is on the disk when this returns.

        Raises:
            OSError: it is not in the file.
        """
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        append_lines(descriptor, entry.to_line())
        try:
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)  # the caller tries again
            raise

    def entries(self) -> Iterator[Entry]:
        """All entries, the first one first.

        Raises:
            UnusableJournal: a line is not an entry.
        """
        for line, _ in read_from(self.path, 0):
            yield line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UnusableJournal(f"another watcher writes to {self.path}") from None

    def _remove_cut_line(self) -> None:
        """Removes an incomplete last line: its image is still in the folder, and is scored again."""
        content_end = os.fstat(self._file.fileno()).st_size
        position, tail = content_end, b""
        while position and b"\n" not in tail:
            start = max(0, position - 2**16)
            self._file.seek(start)
            tail = self._file.read(position - start) + tail
            position = start
        end = position + tail.rfind(b"\n") + 1
        if end != content_end:
            self._file.truncate(end)


def read_from(path: Path, offset: int) -> Iterator[tuple[Entry, int]]:
    """The complete entries after an offset in bytes, each with the offset of its end.

    Raises:
        UnusableJournal: a line is not an entry.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return  # being written
            offset += len(line)
            try:
                entry = Entry.parse(line)
            except (ValueError, KeyError, TypeError) as error:
                what = f"{path}: the line that ends at byte {offset} is not an entry of a watcher"
                raise UnusableJournal(f"{what}; choose another --journal") from error
            yield entry, offset
