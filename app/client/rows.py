"""One row of results per picture, and the two formats that programs read: CSV and JSON Lines."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, Protocol


@dataclass(frozen=True)
class Row:
    """What became of one picture; what a rejected one does not have is ``None``.

    Attributes:
        path: as the command line led to it.
        warnings: ``None`` where the service was not asked for them.
        error: why it was rejected.
    """

    path: str
    status: Literal["scored", "rejected"]
    verdict: Literal["normal", "anomaly"] | None = None
    score: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    mse: float | None = None
    false_alarm_rate: float | None = None
    model: str | None = None
    version: str | None = None
    warnings: tuple[str, ...] | None = None
    error: str | None = None

    @property
    def outcome(self) -> str:
        """``normal``, ``anomaly`` or ``rejected``."""
        return self.verdict or self.status


COLUMNS: Final = tuple(column.name for column in fields(Row))

BadRecord: Final = (ValueError, KeyError, TypeError)
"""What decoding raises for what no format wrote."""


class Format(Protocol):
    """How rows stand in a file: a header, then one record each."""

    @property
    def header(self) -> bytes:
        """What the file begins with."""

    @property
    def beginning(self) -> bytes:
        """What tells a file of this format from any other."""

    def encode(self, row: Row) -> bytes:
        """A record, with its line's end."""

    def is_complete(self, record: bytes) -> bool:
        """Whether lines make a whole record."""

    def decode(self, record: bytes) -> Row:
        """The row of a record, its numbers as far as a later run needs them."""


class Csv:
    """A header and one record per row; empty where there is no value; warnings joined by semicolons."""

    header = beginning = (",".join(COLUMNS) + "\n").encode()

    def encode(self, row: Row) -> bytes:
        """A record; file names that are no UTF-8 keep their bytes."""
        values = {**asdict(row), "warnings": "; ".join(row.warnings or ())}
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values.values())
        return line.getvalue().encode(errors="surrogateescape")

    def is_complete(self, record: bytes) -> bool:
        """A name with a line break is quoted: its record has several lines."""
        return record.endswith(b"\n") and record.count(b'"') % 2 == 0

    def decode(self, record: bytes) -> Row:
        """The row of a record."""
        (values,) = csv.reader(io.StringIO(record.decode(errors="surrogateescape"), newline=""), strict=True)
        return _row(dict(zip(COLUMNS, values, strict=True)))


class JsonLines:
    """One JSON object per row; ``null`` where there is no value."""

    header = b""
    beginning = b'{"path": '

    def encode(self, row: Row) -> bytes:
        r"""A record; bytes of file names that are no UTF-8 become ``\udcXX``, which JSON readers take."""
        return (json.dumps(asdict(row), ensure_ascii=False) + "\n").encode(errors="backslashreplace")

    def is_complete(self, record: bytes) -> bool:
        """JSON has no line breaks inside."""
        return record.endswith(b"\n")

    def decode(self, record: bytes) -> Row:
        """The row of a record."""
        return _row(json.loads(record))


FORMATS: Final[Mapping[str, Format]] = {"csv": Csv(), "jsonl": JsonLines()}


def _row(values: Mapping[str, Any]) -> Row:
    rate = values["false_alarm_rate"]
    row = Row(
        path=values["path"],
        status=values["status"],
        verdict=values["verdict"] or None,
        false_alarm_rate=float(rate) if rate else None,
        model=values["model"] or None,
        version=values["version"] or None,
    )
    if not isinstance(row.path, str) or row.outcome not in {"normal", "anomaly", "rejected"}:
        raise ValueError(f"no row: {values}")
    return row
