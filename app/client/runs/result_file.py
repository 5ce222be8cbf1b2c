"""The result file of a run. Rows are appended, and a run that was killed at any time can resume from the file."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from app.client.runs.file_search import path_key
from app.client.runs.rows import DECODE_ERRORS, Row, RowFormat
from app.files.writing import append_lines, replaced_file

if sys.platform != "win32":
    import fcntl


class UnusableResultFile(Exception):
    """Rows cannot be appended to the file; the message gives the reason."""


@dataclass
class PreviousResults:
    """The results of earlier runs in the same file.

    Attributes:
        outcomes: ``normal``, ``anomaly`` or ``rejected`` by ``path_key`` of the image.
        models: names of the models that scored the images.
        sensitivities: what decided the verdicts of the rows: false-alarm rates, or thresholds.
        repaired: whether an incomplete last row was removed.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    sensitivities: set[str] = field(default_factory=set)
    repaired: bool = False

    def add(self, row: Row) -> None:
        """Adds a row."""
        self.outcomes[path_key(Path(row.path))] = sys.intern(row.outcome)
        if row.model is not None:
            self.models.add(row.model)
        if row.sensitivity is not None:
            self.sensitivities.add(row.sensitivity)


class ResultFile:
    """A CSV or JSON Lines file, opened for appending and locked against other runs.

    Opening reads the rows of earlier runs into ``previous`` and removes an incomplete last row.

    Raises:
        UnusableResultFile: another run is writing to the file, it is not a regular file, or its content is not in
            the given format.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, row_format: RowFormat) -> None:
        self._path = path
        self._format = row_format
        if path.exists() and not path.is_file():
            raise UnusableResultFile(f"{path} is not a regular file")
        self._file: BinaryIO = path.open("a+b")
        try:
            self._lock()
            self._check_signature()
            self.previous = PreviousResults()
            self._truncate(self._read_rows())
        except BaseException:
            self._file.close()
            raise

    def write(self, rows: Sequence[Row]) -> None:
        """Appends rows and passes them to the operating system, so that none is lost if the process is killed.

        Raises:
            OSError: they cannot be written; then none of them is in the file.
        """
        append_lines(self._file.fileno(), b"".join(map(self._format.encode, rows)))

    def rows(self) -> Iterator[Row]:
        """All rows of the file, of earlier runs too."""
        self._file.seek(0)
        for number, record in enumerate(self._records(), 1):
            if number > 1 or not self._format.header:
                yield self._format.decode(record)

    def change_rows(self, change: Callable[[Row], Row]) -> None:
        """Replaces the file by one with changed rows. The last call before closing: later rows would be lost.

        Raises:
            OSError: it cannot be written; the file is intact.
        """
        with replaced_file(self._path) as changed:
            changed.write(self._format.header)
            changed.writelines(self._format.encode(change(row)) for row in self.rows())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            os.fsync(self._file.fileno())

    def _lock(self) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UnusableResultFile(f"another run is writing to {self._path}") from None

    def _check_signature(self) -> None:
        """Accepts a prefix of the signature too: an earlier run may have been killed while writing it."""
        self._file.seek(0)
        if not self._format.signature.startswith(self._file.read(len(self._format.signature))):
            raise self._invalid_record(1)

    def _read_rows(self) -> int:
        """Adds all complete rows to ``previous``; returns the offset of the end of the last one."""
        self._file.seek(0)
        end = 0
        for number, record in enumerate(self._records(), 1):
            if number > 1 or not self._format.header:
                try:
                    self.previous.add(self._format.decode(record))
                except DECODE_ERRORS as error:
                    raise self._invalid_record(number) from error
            end += len(record)
        return end

    def _truncate(self, end: int) -> None:
        """Removes everything after ``end``, and writes the header if nothing is left."""
        if end != os.fstat(self._file.fileno()).st_size:
            self._file.truncate(end)
            self.previous.repaired = True
        if end == 0:
            append_lines(self._file.fileno(), self._format.header)

    def _records(self) -> Iterator[bytes]:
        """Yields complete records; an incomplete one at the end is left out."""
        record = b""
        for line in self._file:
            record += line
            if self._format.is_complete(record):
                yield record
                record = b""

    def _invalid_record(self, number: int) -> UnusableResultFile:
        return UnusableResultFile(
            f"{self._path}: record {number} is not in this format; choose another --output, or move the file away"
        )
