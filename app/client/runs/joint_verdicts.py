"""Verdicts of all images of a run together, by a false discovery rate: rows stay undecided until the last is scored."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from app.client.runs.file_search import path_key
from app.client.runs.result_file import ResultFile
from app.client.runs.rows import Row, RowWriter
from app.false_discovery import largest_flagged


class JointVerdicts:
    """Collects rows without verdicts: a result file at once, so that a run can be resumed; other outputs at the end.

    Args:
        writer: writes the rows.
        fdr: the false discovery rate, in (0, 1).
    """

    def __init__(self, writer: RowWriter, fdr: float) -> None:
        self._writer = writer
        self._fdr = fdr
        self._held: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Adds rows."""
        undecided = [_undecided(row, self._fdr) for row in rows]
        if isinstance(self._writer, ResultFile):
            self._writer.write(undecided)
        else:
            self._held += undecided

    def decide(self) -> dict[str, str]:
        """Decides all rows, in a file those of earlier runs too. Returns their outcomes by ``path_key``.

        Raises:
            OSError: a file cannot be written; it still has the undecided rows.
        """
        file = self._writer if isinstance(self._writer, ResultFile) else None
        verdict = _verdict((row.p_value for row in (file.rows() if file else self._held)), self._fdr)
        outcomes: dict[str, str] = {}

        def decided(row: Row) -> Row:
            row = verdict(row)
            outcomes[path_key(Path(row.path))] = row.outcome
            return row

        if file:
            file.change_rows(decided)
        else:
            self._writer.write([decided(row) for row in self._held])
        return outcomes


def _undecided(row: Row, fdr: float) -> Row:
    if row.p_value is None:  # rejected
        return row
    return replace(row, verdict=None, threshold=None, false_alarm_rate=None, fdr=fdr)


def _verdict(p_values: Iterable[float | None], fdr: float) -> Callable[[Row], Row]:
    """What gives each row its verdict, from the p-values of all rows."""
    largest = largest_flagged([each for each in p_values if each is not None], fdr) or 0

    def decided(row: Row) -> Row:
        if row.p_value is None:
            return row
        flagged = row.p_value <= largest
        return replace(row, verdict="anomaly" if flagged else "normal", out_of_scope=row.out_of_scope and flagged)

    return decided
