"""The file that rows are appended to: a run that was killed at any instant goes on with it."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from app.client.finding import identity
from app.client.rows import BadRecord, Format, Row

if sys.platform != "win32":
    import fcntl


class UnusableResults(Exception):
    """The file cannot be gone on with; the text says why."""


@dataclass
class Earlier:
    """What earlier runs left in the file.

    Attributes:
        outcomes: ``normal``, ``anomaly`` or ``rejected`` by picture.
        models: names of the models that scored.
        rates: false-alarm rates that they scored at.
        repaired: whether a half-written row was cut off.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    rates: set[float] = field(default_factory=set)
    repaired: bool = False

    def add(self, row: Row) -> None:
        """Takes note of a row."""
        self.outcomes[identity(Path(row.path))] = sys.intern(row.outcome)
        if row.model is not None:
            self.models.add(row.model)
        if row.false_alarm_rate is not None:
            self.rates.add(row.false_alarm_rate)


class ResultFile:
    """A CSV or JSON Lines file, open for more rows and closed to other runs.

    Raises:
        UnusableResults: another run is writing to it, or it holds something else.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, form: Format) -> None:
        self._path = path
        self._form = form
        if path.exists() and not path.is_file():
            raise UnusableResults(f"{path} is no regular file")
        self._file: BinaryIO = path.open("a+b")
        try:
            self._lock()
            self.earlier = self._read()
        except BaseException:
            self._file.close()
            raise

    def write(self, rows: Sequence[Row]) -> None:
        """Appends rows and hands them to the operating system: after that, killing this process loses none."""
        self._file.write(b"".join(map(self._form.encode, rows)))
        self._file.flush()

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
                raise UnusableResults(f"another run is writing to {self._path}") from None

    def _read(self) -> Earlier:
        """Reads all rows, cuts off a half-written one, leaves the file ready for the next."""
        earlier = Earlier()
        beginning = self._form.beginning
        self._file.seek(0)
        begins_with = self._file.read(len(beginning))
        if not beginning.startswith(begins_with):
            raise self._foreign(1)
        self._file.seek(0)
        end = 0
        for number, record in enumerate(self._records(), 1):
            if number > 1 or not self._form.header:
                try:
                    earlier.add(self._form.decode(record))
                except BadRecord as error:
                    raise self._foreign(number) from error
            end += len(record)
        if end != os.fstat(self._file.fileno()).st_size:
            self._file.truncate(end)
            earlier.repaired = True
        if end == 0:
            self._file.write(self._form.header)
            self._file.flush()
        return earlier

    def _records(self) -> Iterator[bytes]:
        """Whole records; what is left at the end is none."""
        record = b""
        for line in self._file:
            record += line
            if self._form.is_complete(record):
                yield record
                record = b""

    def _foreign(self, number: int) -> UnusableResults:
        return UnusableResults(
            f"{self._path}: record {number} is none of this format; choose another --output, or move the file away"
        )
