"""Output for people on a terminal: result table, progress bar, summary line, error messages."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from app.client.runs.rows import Row
from app.files.search import PassedOver

_STYLES: Final = {"anomaly": "bold red", "normal": "green", "rejected": "yellow"}


class PipeConsole(Console):
    """A console that raises ``BrokenPipeError`` when its output pipe is closed."""

    def on_broken_pipe(self) -> NoReturn:
        """Re-raises the error; Rich would exit the process."""
        raise  # noqa: PLE0704  called while the error is handled


class Table:
    """Prints rows as a table as they arrive; keeps none in memory."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._heading_printed = False

    def write(self, rows: Sequence[Row]) -> None:
        """Prints rows, below a heading the first time."""
        lines = [] if self._heading_printed else [Text(f"{'verdict':<8}  {'score':>10}  {'p-value':>8}  image", "bold")]
        self._heading_printed = True
        self._console.print(*lines, *map(_table_row, rows), sep="\n", soft_wrap=True, highlight=False)


@dataclass
class Tally:
    """Counts of a run.

    Attributes:
        total: images found under the given paths.
        previous: outcomes of these images in earlier runs, from the result file.
        outcomes: outcomes of this run.
        passed_over: what was not looked at in the given folders.
        started: start of the run, on the monotonic clock.
    """

    total: int = 0
    previous: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    passed_over: PassedOver = field(default_factory=PassedOver)
    started: float = field(default_factory=time.monotonic)

    @property
    def all(self) -> Counter[str]:
        """Outcomes of this run and of earlier runs."""
        return self.previous + self.outcomes

    @property
    def done(self) -> int:
        """Number of images with an outcome."""
        return self.all.total()

    def summary(self) -> str:
        """Returns the summary line."""
        seconds = time.monotonic() - self.started
        processed = self.outcomes.total()
        counts = self.all
        parts = [f"{counts['normal']:,} normal", _plural(counts["anomaly"], "anomaly", "anomalies")]
        if counts["rejected"]:
            parts.append(f"{counts['rejected']:,} could not be scored")
        before = f" ({self.previous.total():,} from earlier runs)" if self.previous else ""
        speed = f" in {seconds:.1f} s, {processed / seconds:,.0f} per second" if processed else ""
        return f"{_plural(self.done, 'image', 'images')}{before}{speed}: {', '.join(parts)}"


def progress_bar(console: Console, *, shown: bool) -> Progress:
    """Returns a progress bar with images done, images per second and the remaining time."""
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
    """Recent images per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", "cyan")


def printable(text: str) -> str:
    """Replaces non-printable characters, so that file names cannot send control sequences to the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def print_error(text: str) -> None:
    """Prints one line to standard error."""
    sys.stderr.write(printable(text) + "\n")


def _table_row(row: Row) -> Text:
    verdict = Text(f"{row.outcome:<8}", _STYLES[row.outcome])
    score = "" if row.score is None else f"{row.score:.6f}"
    p_value = "" if row.p_value is None else f"{row.p_value:.4f}"
    note = row.error or "; ".join(row.warnings or ())
    columns = Text(f"  {score:>10}  {p_value:>8}  {printable(row.path)}")
    return Text.assemble(verdict, columns, (f"  {printable(note)}" if note else "", "dim"))


def _plural(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
