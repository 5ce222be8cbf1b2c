"""Results: a folder of Parquet files, each written atomically.

Only the process that starts the job writes them. Rows have a few hundred bytes, so one writer is not a bottleneck, and
each row is written once, even if Ray repeats work after a machine fails. A file is written under a name that readers
ignore, and renamed when it is complete. Incomplete files of a killed run are deleted by the next run.
"""

import os
import time
import uuid
from contextlib import suppress
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from app.false_discovery import largest_flagged
from bulk.errors import CannotRun
from bulk.scoring import BOXES, OUTCOME, PATH, ModelSnapshot
from bulk.storage import PARQUET_SUFFIX, first_line, locate

SCHEMA: Final = pa.schema(
    {
        PATH: pa.large_string(),
        "status": pa.string(),
        "verdict": pa.string(),
        "score": pa.float64(),
        "threshold": pa.float64(),
        "p_value": pa.float64(),
        "mse": pa.float64(),
        "false_alarm_rate": pa.float64(),
        "model": pa.string(),
        "version": pa.string(),
        "warnings": pa.list_(pa.string()),
        "boxes": BOXES,
        "error": pa.string(),
        "fdr": pa.float64(),
        "out_of_scope": pa.bool_(),
    }
)
"""One row per image: the columns of ``app.client``, in their order."""

_SAME: Final = ("model", "version", "fdr", "false_alarm_rate")
_ADDED: Final = {"fdr", "out_of_scope"}  # absent from files that earlier versions of this job wrote
_INCOMING: Final = ".incoming"  # the names also begin with a dot, so readers of the folder ignore the files
_MAX_WAIT_S: Final = 30.0


class Results:
    """A folder or bucket of results, with a buffer for new rows.

    Args:
        folder: path or URL; created with the first file.
        snapshot: the model that scores.
        rows_per_file: a file is written as soon as the buffer contains this many rows.

    Raises:
        CannotRun: the scheme of the URL is unknown.
    """

    def __init__(self, folder: str, snapshot: ModelSnapshot, *, rows_per_file: int) -> None:
        self.folder = folder
        self._file_system, self._root = locate(folder, os.getcwd())  # noqa: PTH109
        self._snapshot = snapshot
        self._rows_per_file = rows_per_file
        self._run = uuid.uuid4().hex[:12]
        self._buffer: list[pa.Table] = []
        self._files = 0
        self._last_write = time.monotonic()

    def earlier(self, *, mixed: bool = False) -> pa.ChunkedArray:
        """The paths of images that have a row, after removing incomplete files.

        Args:
            mixed: accept rows of another model, version or false-alarm rate.

        Raises:
            CannotRun: there are such rows without ``mixed``, or files that are damaged or were written by another
                program.
        """
        self._remove_incomplete()
        paths: list[pa.Array] = []
        for name in self._parts():
            rows = self._read(name, [PATH, *_SAME])
            if not mixed:
                self._require_same(name, rows)
            paths += rows[PATH].chunks
        return pa.chunked_array(paths, pa.large_string())

    def forget_rejected(self) -> None:
        """Deletes the rows of images that could not be scored, so that they are scored again."""
        for name in self._parts():
            rows = self._read(name, SCHEMA.names)
            if pc.any(pc.equal(rows["status"], "rejected")).as_py():
                self._write(name, rows.filter(pc.equal(rows["status"], "scored")))

    def decide(self, fdr: float) -> int:
        """Decides all rows together by a false discovery rate; returns the number of anomalies.

        Killed at any time, the same call decides all again.

        Raises:
            OSError: a file cannot be written.
        """
        parts = self._parts()
        p_values = pa.chunked_array(
            [chunk for name in parts for chunk in self._read(name, ["p_value"])["p_value"].chunks]
        )
        largest = largest_flagged(p_values.drop_null().to_pylist(), fdr) or 0
        for name in parts:
            rows = self._read(name, SCHEMA.names)
            flagged = pc.less_equal(rows["p_value"], largest)  # null if rejected
            decided = {
                "verdict": pc.if_else(flagged, "anomaly", "normal"),
                "out_of_scope": pc.and_(rows["out_of_scope"], flagged),
            }
            for column, values in decided.items():
                rows = rows.set_column(SCHEMA.get_field_index(column), SCHEMA.field(column), values)
            self._write(name, rows)
        return int(pc.sum(pc.less_equal(p_values, largest)).as_py() or 0)

    def add(self, outcomes: pa.Table) -> None:
        """Adds rows; writes a file if there are enough of them, or if the last file was written 30 s ago."""
        constants = {name: getattr(self._snapshot, name) for name in SCHEMA.names if name not in OUTCOME.names}
        columns = {
            field.name: pa.repeat(pa.scalar(constants[field.name], field.type), len(outcomes))
            if field.name in constants
            else outcomes[field.name]
            for field in SCHEMA
        }
        self._buffer.append(pa.table(columns, SCHEMA))
        if sum(map(len, self._buffer)) >= self._rows_per_file or time.monotonic() - self._last_write > _MAX_WAIT_S:
            self.flush()

    def flush(self) -> None:
        """Writes the buffered rows.

        Raises:
            OSError: they cannot be written.
        """
        if self._buffer:
            self._write(f"part-{self._run}-{self._files:05}{PARQUET_SUFFIX}", pa.concat_tables(self._buffer))
            self._files += 1
            self._buffer.clear()
        self._last_write = time.monotonic()

    def _remove_incomplete(self) -> None:
        """Deletes files that a killed run left incomplete."""
        for name in self._names():
            if name.endswith(_INCOMING):
                self._file_system.delete_file(f"{self._root}/{name}")

    def _parts(self) -> list[str]:
        """The names of the complete files."""
        return [name for name in self._names() if name.endswith(PARQUET_SUFFIX) and not name.startswith((".", "_"))]

    def _names(self) -> list[str]:
        try:
            entries = self._file_system.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        except OSError as error:
            raise CannotRun(f"{self.folder} cannot be read: {first_line(error)}") from error
        return sorted(entry.base_name for entry in entries if entry.is_file)

    def _read(self, name: str, columns: list[str]) -> pa.Table:
        try:
            with self._file_system.open_input_file(f"{self._root}/{name}") as source:
                file = pq.ParquetFile(source)
                if missing := set(columns) - set(file.schema_arrow.names) - _ADDED:
                    raise CannotRun(
                        f"{self.folder}/{name} has no column {min(missing)}: it was written by another program; "
                        "choose another --output"
                    )
                rows = file.read([column for column in columns if column in file.schema_arrow.names])
                for column in set(columns) & _ADDED - set(rows.column_names):
                    rows = rows.append_column(column, pa.nulls(len(rows)))
                return rows.select(columns).cast(pa.schema([SCHEMA.field(column) for column in columns]))
        except (OSError, pa.ArrowInvalid) as error:
            raise CannotRun(
                f"{self.folder}/{name} is damaged: {first_line(error)}; delete it to score its images again"
            ) from error

    def _require_same(self, name: str, rows: pa.Table) -> None:
        for column in _SAME:
            ours = getattr(self._snapshot, column)
            for theirs in rows[column].unique().to_pylist():
                if theirs != ours:
                    what = column.replace("_", " ")
                    raise CannotRun(
                        f"{self.folder}/{name} has rows with {what} {theirs}, this run has {what} {ours}: "
                        f"choose another --output, the same --{column.replace('_', '-')}, or --mixed"
                    )

    def _write(self, name: str, rows: pa.Table) -> None:
        if isinstance(self._file_system, fs.LocalFileSystem):
            self._file_system.create_dir(self._root)
        incoming = f"{self._root}/.{name}{_INCOMING}"
        try:
            with self._file_system.open_output_stream(incoming) as file:
                pq.write_table(rows, file, compression="zstd")
            if isinstance(self._file_system, fs.LocalFileSystem):
                _flush(incoming)
            self._file_system.move(incoming, f"{self._root}/{name}")
        except BaseException:
            with suppress(OSError):
                self._file_system.delete_file(incoming)  # it would take room on a full disk
            raise


def _flush(path: str) -> None:
    """Flushes a file to disk, so that no crash can leave its name without its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
