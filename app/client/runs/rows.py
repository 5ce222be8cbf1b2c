"""One result row per image, and its machine-readable formats: CSV and JSON Lines."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, Protocol

from app.client.responses import Box


@dataclass(frozen=True)
class Row:
    """The result of one image; fields that do not apply to a rejected image are ``None``.

    Attributes:
        path: as found from the command line's arguments, not made absolute.
        boxes: of the regions, in pixels of the image as a viewer shows it; ``None`` if the model has no map.
        error: the reason of a rejection.
        fdr: the false discovery rate by which the images of a run were decided together. A scored row without a
            verdict waits for the other images of its run.
        out_of_scope: whether the image does not look like the training images at all; it is then an anomaly.
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
    boxes: tuple[Box, ...] | None = None
    error: str | None = None
    fdr: float | None = None
    out_of_scope: bool | None = None

    @property
    def outcome(self) -> str:
        """``normal``, ``anomaly``, ``rejected`` or, if it is not decided yet, ``scored``."""
        return self.verdict or self.status

    @property
    def sensitivity(self) -> str | None:
        """What decided the verdict; ``None`` if there is none."""
        return None if self.status == "rejected" else sensitivity(self.false_alarm_rate, self.threshold, self.fdr)


def sensitivity(false_alarm_rate: float | None, threshold: float | None, fdr: float | None = None) -> str:
    """``false-alarm rate 0.01`` or, if a run has chosen no rate, ``threshold 0.5`` or ``false discovery rate 0.1``."""
    if fdr is not None:
        return f"false discovery rate {fdr}"
    return f"threshold {threshold}" if false_alarm_rate is None else f"false-alarm rate {false_alarm_rate}"


COLUMNS: Final = tuple(column.name for column in fields(Row))

_SEPARATOR: Final = "; "

DECODE_ERRORS: Final = (ValueError, KeyError, TypeError)
"""The exceptions that ``RowFormat.decode`` raises for an invalid record."""


class RowWriter(Protocol):
    """Writes rows to a file, to standard output or to a terminal."""

    def write(self, rows: Sequence[Row]) -> None:
        """Writes rows in the given order."""


class RowFormat(Protocol):
    """A file format: a header, then one record per row."""

    @property
    def header(self) -> bytes:
        """The first bytes of a new file; may be empty."""

    @property
    def signature(self) -> bytes:
        """The bytes that every file of this format starts with, by which it is recognized."""

    def encode(self, row: Row) -> bytes:
        """Returns the record of a row, line end included."""

    def is_complete(self, record: bytes) -> bool:
        """Whether one or more lines form a complete record."""

    def decode(self, record: bytes) -> Row:
        """Parses a record.

        Raises:
            ValueError, KeyError, TypeError: the record is invalid.
        """


class Csv:
    """CSV with a header line; a missing value is an empty field; warnings and boxes are joined with semicolons.

    An apostrophe precedes texts that a spreadsheet would evaluate as a formula, as in the page's CSV file.
    """

    header = signature = (",".join(COLUMNS) + "\n").encode()

    def encode(self, row: Row) -> bytes:
        """Returns the record of a row; paths that are not valid UTF-8 keep their bytes."""
        boxes = _SEPARATOR.join(" ".join(map(str, box)) for box in row.boxes or ())
        values = {**asdict(row), "warnings": _SEPARATOR.join(row.warnings or ()), "boxes": boxes}
        record = io.StringIO()
        # The writer quotes fields that contain a character of its line end, so CR and LF both have to be in it.
        csv.writer(record, lineterminator="\r\n").writerow(map(_escape_formula, values.values()))
        return record.getvalue().removesuffix("\r\n").encode(errors="surrogateescape") + b"\n"

    def is_complete(self, record: bytes) -> bool:
        """Whether all quotes are closed: a path with a line break is quoted and spans several lines."""
        return record.endswith(b"\n") and record.count(b'"') % 2 == 0

    def decode(self, record: bytes) -> Row:
        """Parses a record; see ``RowFormat.decode``."""
        (values,) = csv.reader(io.StringIO(record.decode(errors="surrogateescape"), newline=""), strict=True)
        row = dict(zip(COLUMNS, map(_unescape_formula, values), strict=True))
        boxes = [box.split() for box in row["boxes"].split(_SEPARATOR)] if row["boxes"] else None
        warnings = tuple(filter(None, row["warnings"].split(_SEPARATOR)))
        return _parse_row({**row, "warnings": warnings, "boxes": boxes})


class JsonLines:
    """JSON Lines: one object per row; a missing value is ``null``."""

    header = b""
    signature = b'{"path": '

    def encode(self, row: Row) -> bytes:
        r"""Returns the record of a row; bytes of a path that are not valid UTF-8 become ``\udcXX`` escapes."""
        return (json.dumps(asdict(row), ensure_ascii=False) + "\n").encode(errors="backslashreplace")

    def is_complete(self, record: bytes) -> bool:
        """Whether the line is terminated: JSON escapes line breaks inside strings."""
        return record.endswith(b"\n")

    def decode(self, record: bytes) -> Row:
        """Parses a record; see ``RowFormat.decode``."""
        row = json.loads(record)
        return _parse_row({**row, "warnings": None if row["warnings"] is None else tuple(row["warnings"])})


FORMATS: Final[Mapping[str, RowFormat]] = {"csv": Csv(), "jsonl": JsonLines()}


# Texts that begin with apostrophes before such a character are escaped too, so that unescaping is unambiguous.
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED_FORMULA: Final = re.compile(r"'+[=+\-@\t\r]")


def _escape_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _unescape_formula(text: str) -> str:
    return text[1:] if _ESCAPED_FORMULA.match(text) else text


def _parse_row(values: Mapping[str, Any]) -> Row:
    row = Row(
        path=values["path"],
        status=values["status"],
        verdict=values["verdict"] or None,
        score=_number(values["score"]),
        threshold=_number(values["threshold"]),
        p_value=_number(values["p_value"]),
        mse=_number(values["mse"]),
        false_alarm_rate=_number(values["false_alarm_rate"]),
        model=values["model"] or None,
        version=values["version"] or None,
        warnings=values["warnings"],
        boxes=None if values["boxes"] is None else tuple(map(_box, values["boxes"])),
        error=values["error"] or None,
        fdr=_number(values["fdr"]),
        out_of_scope=_flag(values["out_of_scope"]),
    )
    outcomes = {"normal", "anomaly", "rejected", *(() if row.fdr is None else ("scored",))}
    if not isinstance(row.path, str) or row.outcome not in outcomes:
        raise ValueError(f"invalid row: {values}")
    return row


def _box(values: Iterable[Any]) -> Box:
    left, top, width, height = map(int, values)
    return left, top, width, height


def _flag(value: Any) -> bool | None:
    """The value of a JSON boolean, or of the text that CSV has for one."""
    return {None: None, "": None, "True": True, "False": False}[value] if not isinstance(value, bool) else value


def _number(value: Any) -> float | None:
    return None if value in {None, ""} else float(value)
