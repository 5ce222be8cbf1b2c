"""What people see: a line per image on a terminal, a line per minute from a service."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from app.client.watching.journal import Entry

MINUTE_S: Final = 60.0


class Report:
    """Prints to standard output; troubles go to standard error, the same one not twice in a row.

    Args:
        each: a line per image; else counts, once a minute.
        waiting: the number of images that are not finished.
    """

    def __init__(self, *, each: bool, waiting: Callable[[], int]) -> None:
        self.each = each
        self._waiting = waiting
        self._counts: Counter[str] = Counter()
        self._missed = 0
        self._trouble = ""
        self._since = time.monotonic()

    def scored(self, entry: Entry) -> None:
        """An image has its line in the journal."""
        self._counts[entry.verdict] += 1
        self._trouble = ""
        if self.each:
            score = "" if entry.score is None else f"{entry.score:.6f}"
            p_value = "" if entry.p_value is None else f"{entry.p_value:.4f}"
            missed = [f"{self._missed:,} missed before"] if self._missed else []
            note = "; ".join([*([entry.error] if entry.error else entry.warnings), *missed])
            self._missed = 0
            _print(f"{entry.time[11:19]}  {entry.verdict:<8}  {score:>10}  {p_value:>8}  {entry.file}  {note}".rstrip())

    def missed(self, ticks: int) -> None:
        """A camera's picture could not be taken when it was due."""
        self._missed += ticks

    def trouble(self, text: str) -> None:
        """A step failed and will be tried again, or a file needs attention."""
        if text != self._trouble:
            self._trouble = text
            print(_printable(text), file=sys.stderr, flush=True)  # noqa: T201

    def tick(self) -> None:
        """Called often: prints the counts when a minute has passed."""
        if not self.each and time.monotonic() - self._since >= MINUTE_S:
            self.summarize()

    def summarize(self) -> None:
        """Prints the counts since the last time, and what waits."""
        counts, self._counts, self._since = self._counts, Counter(), time.monotonic()
        missed, self._missed = (f", {self._missed:,} missed" if self._missed else ""), 0
        rejected = f", {counts['rejected']:,} rejected" if counts["rejected"] else ""
        _print(
            f"{counts.total():,} images: {counts['normal']:,} normal, {counts['anomaly']:,} anomalous{rejected}; "
            f"{self._waiting():,} waiting{missed}"
        )


def _print(text: str) -> None:
    print(_printable(text), flush=True)  # noqa: T201


def _printable(text: str) -> str:
    """File names cannot send control sequences to the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
