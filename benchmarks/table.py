"""The table of a benchmark, and its figures in ``results.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

_RESULTS: Final = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        measure: what is measured.
        ours, other: medians of the two sides, in the unit of the measure.
        value: the result: the median of the ratios, or a figure of the service itself.
        goal: the goal for ``value``, as text.
        reached: whether ``value`` reaches it.
    """

    measure: str
    ours: float
    other: float | None
    value: float
    goal: str
    reached: bool


def ratio(measure: str, pairs: Sequence[tuple[float, float]], goal: float) -> Line:
    """A line with the median ratio of a figure of both sides; a negative goal is an upper limit."""
    value = median(mine / theirs for mine, theirs in pairs)
    return Line(
        measure,
        median(mine for mine, _ in pairs),
        median(theirs for _, theirs in pairs),
        value,
        f"≥ {goal:g}" if goal > 0 else f"≤ {-goal:g}",
        value >= goal if goal > 0 else value <= -goal,
    )


def table(lines: Sequence[Line]) -> str:
    """The lines as Markdown."""
    rows = ["| measure | ours | other | result | goal |", "|---|---|---|---|---|"]
    for line in lines:
        other = "" if line.other is None else f"{line.other:,.4g}"
        mark = "" if line.reached else ", missed"
        rows.append(f"| {line.measure} | {line.ours:,.4g} | {other} | **{line.value:.3g}** | {line.goal}{mark} |")
    return "\n".join(rows)


def save(name: str, settings: Mapping[str, object], lines: Sequence[Line]) -> None:
    """Writes the figures of a benchmark, in place of those of its last run."""
    results = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    results[name] = {**settings, "lines": [asdict(line) for line in lines]}
    _RESULTS.write_text(json.dumps(results, indent=2) + "\n")
