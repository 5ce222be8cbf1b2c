"""The results: a folder of Parquet files, each of which is there whole or not at all.

The process that starts the job writes them. A row is some hundred bytes, so that this is no bottleneck, and it makes
the promise simple: whatever Ray does again when machines die, a row comes here once. A file is written under a name
that readers pass over and then renamed; what a killed run has left under such a name never counts.
"""

import os
import time
import uuid
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from bulk.errors import CannotRun
from bulk.scoring import OUTCOME, PATH, ModelSnapshot
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
        "error": pa.string(),
    }
)
"""One row per image: the columns of ``app.client``, in their order."""

_SAME: Final = ("model", "version", "false_alarm_rate")
_INCOMING: Final = ".incoming"  # hidden, and no Parquet by its name: whatever reads the folder passes over it
_SECONDS: Final = 30.0


class Results:
    """A folder or bucket of results, and the rows on their way into it.

    Args:
        folder: where; it is made when the first rows come.
        snapshot: the model that scores.
        rows_per_file: about how many; the last block that came goes with the others.

    Raises:
        CannotRun: the folder's name cannot be understood.
    """

    def __init__(self, folder: str, snapshot: ModelSnapshot, *, rows_per_file: int) -> None:
        self.folder = folder
        self._file_system, self._root = locate(folder, os.getcwd())  # noqa: PTH109
        self._snapshot = snapshot
        self._rows_per_file = rows_per_file
        self._run = uuid.uuid4().hex[:12]
        self._waiting: list[pa.Table] = []
        self._files = 0
        self._since = time.monotonic()

    def earlier(self, *, mixed: bool = False) -> pa.ChunkedArray:
        """The paths that have a row.

        Args:
            mixed: rows of another model, version or rate count as well.

        Raises:
            CannotRun: there are such rows, or files that we did not write or that were damaged.
        """
        self._clear_up()
        paths: list[pa.Array] = []
        for name in self._parts():
            rows = self._read(name, [PATH, *_SAME])
            if not mixed:
                self._require_same(name, rows)
            paths += rows[PATH].chunks
        return pa.chunked_array(paths, pa.large_string())

    def forget_rejected(self) -> None:
        """Takes the rows of images that could not be scored out, so that they are tried again."""
        for name in self._parts():
            rows = self._read(name, SCHEMA.names)
            if pc.any(pc.equal(rows["status"], "rejected")).as_py():
                self._write(name, rows.filter(pc.equal(rows["status"], "scored")))

    def add(self, outcomes: pa.Table) -> None:
        """Takes rows, and writes a file when many have come or some have waited for long."""
        constants = {name: getattr(self._snapshot, name) for name in SCHEMA.names if name not in OUTCOME.names}
        columns = {
            field.name: pa.repeat(pa.scalar(constants[field.name], field.type), len(outcomes))
            if field.name in constants
            else outcomes[field.name]
            for field in SCHEMA
        }
        self._waiting.append(pa.table(columns, SCHEMA))
        if sum(map(len, self._waiting)) >= self._rows_per_file or time.monotonic() - self._since > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what waits.

        Raises:
            OSError: the file system refuses.
        """
        if self._waiting:
            self._write(f"part-{self._run}-{self._files:05}{PARQUET_SUFFIX}", pa.concat_tables(self._waiting))
            self._files += 1
            self._waiting.clear()
        self._since = time.monotonic()

    def _clear_up(self) -> None:
        """Removes what a killed run was writing."""
        for name in self._names():
            if name.endswith(_INCOMING):
                self._file_system.delete_file(f"{self._root}/{name}")

    def _parts(self) -> list[str]:
        """The names of the files that readers see."""
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
                if missing := set(columns) - set(file.schema_arrow.names):
                    raise CannotRun(
                        f"{self.folder}/{name} has no column {min(missing)}: it was written by something else; "
                        "choose another --output"
                    )
                return file.read(columns).cast(pa.schema([SCHEMA.field(column) for column in columns]))
        except (OSError, pa.ArrowInvalid) as error:
            raise CannotRun(
                f"{self.folder}/{name} is damaged: {first_line(error)}; without it, its images are scored again"
            ) from error

    def _require_same(self, name: str, rows: pa.Table) -> None:
        for column in _SAME:
            ours = getattr(self._snapshot, column)
            for theirs in rows[column].unique().to_pylist():
                if theirs != ours:
                    what = column.replace("_", " ")
                    raise CannotRun(
                        f"{self.folder}/{name} has rows of the {what} {theirs}, this run would add some of {ours}: "
                        f"choose another --output, the same --{column.replace('_', '-')}, or --mixed"
                    )

    def _write(self, name: str, rows: pa.Table) -> None:
        if isinstance(self._file_system, fs.LocalFileSystem):
            self._file_system.create_dir(self._root)
        incoming = f"{self._root}/.{name}{_INCOMING}"
        with self._file_system.open_output_stream(incoming) as file:
            pq.write_table(rows, file, compression="zstd")
        self._file_system.move(incoming, f"{self._root}/{name}")
