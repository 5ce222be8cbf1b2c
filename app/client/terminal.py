"""What a person at a terminal sees: rows as a table that grows, a progress bar, the closing line."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from app.client.rows import Row

_STYLES: Final = {"anomaly": "bold red", "normal": "green", "rejected": "yellow"}


class PipeConsole(Console):
    """A console that lets its caller decide what a closed pipe means."""

    def on_broken_pipe(self) -> NoReturn:
        """Hands the error on, where Rich would end the process."""
        raise  # noqa: PLE0704  it is called while the error is handled


class Table:
    """Rows for people, printed as they come: however many there are, none is kept."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = False

    def write(self, rows: Sequence[Row]) -> None:
        """Prints rows, with a heading above the first."""
        lines = [] if self._begun else [Text(f"{'verdict':<8}  {'score':>10}  {'p-value':>8}  picture", "bold")]
        self._begun = True
        self._console.print(*lines, *map(_line, rows), sep="\n", soft_wrap=True, highlight=False)


@dataclass
class Tally:
    """How far a run is.

    Attributes:
        total: pictures that the command line leads to.
        earlier: outcomes that earlier runs left, among these.
        outcomes: outcomes of this run.
    """

    total: int = 0
    earlier: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    @property
    def all(self) -> Counter[str]:
        """Outcomes of this run and of earlier ones."""
        return self.earlier + self.outcomes

    @property
    def done(self) -> int:
        """Pictures that have an outcome."""
        return self.all.total()

    def summary(self) -> str:
        """One line on what came out."""
        seconds = time.monotonic() - self.began
        scored = self.outcomes.total()
        counts = self.all
        parts = [f"{counts['normal']:,} normal", _plural(counts["anomaly"], "anomaly", "anomalies")]
        if counts["rejected"]:
            parts.append(f"{counts['rejected']:,} could not be scored")
        before = f" ({self.earlier.total():,} of them earlier)" if self.earlier else ""
        speed = f" in {seconds:.1f} s, {scored / seconds:,.0f} per second" if scored else ""
        return f"{_plural(self.done, 'picture', 'pictures')}{before}{speed}: {', '.join(parts)}"


def progress_bar(console: Console, *, shown: bool) -> Progress:
    """Pictures done, per second, and the time left."""
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[anomalies]} anomalous"),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not shown,
    )


class _Rate(ProgressColumn):
    """Pictures per second, lately."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", "cyan")


def printable(text: str) -> str:
    """File names may hold what would drive a terminal."""
    return "".join(mark if mark.isprintable() else "�" for mark in text)


def complain(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(printable(text) + "\n")


def _line(row: Row) -> Text:
    verdict = Text(f"{row.outcome:<8}", _STYLES[row.outcome])
    numbers = "" if row.score is None else f"{row.score:.6f}"
    p_value = "" if row.p_value is None else f"{row.p_value:.4f}"
    note = row.error or "; ".join(row.warnings or ())
    path = Text(f"  {numbers:>10}  {p_value:>8}  {printable(row.path)}")
    return Text.assemble(verdict, path, (f"  {printable(note)}" if note else "", "dim"))


def _plural(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
