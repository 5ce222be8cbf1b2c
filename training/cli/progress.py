"""The output of a training run: the data, a line per epoch, and the result.

On a terminal, a progress bar below the epochs shows the rate and the remaining time.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from training.cli.card import input_text, outcome_rows, table_of
from training.cli.parser import command_line, print_first, print_notes, print_suspects, print_warnings
from training.data.datasets import DOWNLOADED, Dataset
from training.data.folders import NORMAL
from training.data.splitting import Partition
from training.model.fitting import Epoch
from training.run import PUBLISHING, READING, Observer, Prepared, Published, Run
from training.selection.choice import Trial
from training.suspects import Suspect

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE


class Display(Observer):
    """Prints the progress of a run; a context manager that restores the terminal.

    Args:
        run: the settings of the run.
        console: the output.
    """

    def __init__(self, run: Run, console: Console) -> None:
        self._run = run
        self._console = console
        self._fitted_on = 0
        self._seconds: list[float] = []
        self._stage = ""
        self._animated = console.is_terminal and not console.is_dumb_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            _Rate(),
            _TimeLeft(),
            console=console,
            transient=True,
            disable=not self._animated,
        )
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    @property
    def publishing(self) -> bool:
        """Whether publishing has begun, so that the store may have changed."""
        return self._stage == PUBLISHING

    def stage(self, name: str, steps: int | None = None) -> None:
        """Shows the name of the stage next to the bar."""
        self._stage = name
        if name == READING and self._run.source.data in DOWNLOADED:
            return  # a download has its own bar
        self._progress.reset(self._task, description=name, total=steps)
        self._progress.start()

    def read(self, data: Dataset) -> None:
        """Prints the data set, the files that could not be read, and what decoding changed."""
        self._print(
            f"[bold]{self._run.name}[/]  {escape(data.source)}, normal: {data.normal_label}; {input_text(data.spec)}"
        )
        print_first(self._console, "skipped", [f"{path}: {reason}" for path, reason in data.unreadable])
        print_notes(self._console, data.remarks, data.excluded)

    def chosen(self, trials: Sequence[Trial]) -> None:
        """Prints what was tried."""
        table = Table("recipe tried", "input", "scoring rule", "AUROC of synthetic defects", box=None)
        for trial in trials:
            tried, (height, width) = trial.candidate, trial.candidate.size
            table.add_row(tried.recipe.name, f"{height} × {width}", tried.rule.name, f"{trial.auroc:.3f}")
        self._console.print(table)

    def prepared(self, run: Run, prepared: Prepared) -> None:
        """Prints the recipe, how images are divided, and images in different parts that look alike."""
        data, parts = prepared.data, prepared.parts
        self._run, self._fitted_on = run, len(parts.fit)
        self._print(f"{len(data.normal):,} normal images{_in_groups(data.groups)}: {_division(data.groups, parts)}")
        normal = data.test_kinds.count(NORMAL)
        self._print(f"{len(data.test):,} test images: {normal:,} normal, {len(data.test) - normal:,} anomalies")
        self._print(
            f"recipe {run.recipe.name}, input {data.spec.height} × {data.spec.width}, scoring rule {run.rule.name}, "
            f"seed {run.seed}, device {prepared.device.type}"
        )
        for where, pairs in (prepared.near_duplicates or {}).items():
            print_first(self._console, f"look alike, {where}", [f"{one} ~ {other}" for one, other in pairs])
        print_warnings(self._console, prepared.warnings)
        self._print("")

    def step(self, images: int) -> None:
        """Advances the bar."""
        self._progress.advance(self._task, images)

    def epoch(self, epoch: Epoch) -> None:
        """Prints the line of an epoch."""
        self._seconds.append(epoch.seconds)
        validation = "" if epoch.validation_loss is None else f"  validation {epoch.validation_loss:.5f}"
        self._print(
            f"epoch {epoch.number:>3}/{self._run.recipe.epochs}  train {epoch.train_loss:.5f}{validation}"
            f"  {epoch.seconds:5.2f} s  {self._fitted_on / max(epoch.seconds, 1e-9):,.0f} images/s"
            f"{'' if self._animated else self._time_left(epoch.number)}{'  pruned' if epoch.pruned else ''}"
        )

    def suspects(self, suspects: Sequence[Suspect]) -> None:
        """Prints the normal images with the highest scores."""
        print_suspects(self._console, suspects)

    def result(self, published: Published, before: str | None) -> None:
        """Prints the result of the run.

        Args:
            published: the new version.
            before: the version that was current before; None if the model is new.
        """
        self._progress.stop()
        manifest, directory = published.manifest, published.directory
        done = "published" if self._run.activate else "stored"
        self._print(f"\n[bold green]{done}[/] [bold]{manifest.name} {manifest.version}[/]\n")
        self._console.print(table_of([*outcome_rows(manifest), ("trained in", _duration(manifest.training.seconds))]))
        self._print("")
        for label, path in (
            ("bundle", directory),
            ("charts", directory / "report"),
            ("report", directory / "report" / "index.html"),
        ):
            self._print(f"[cyan]{label:<10}[/]{escape(str(path))}")
        if before:
            undo = command_line("activate", manifest.name, before, store=self._run.store)
            self._print(f"[cyan]{'undo':<10}[/]{escape(undo)}")

    def _time_left(self, done: int) -> str:
        remaining = self._run.recipe.epochs - done
        if remaining <= 0:
            return ""
        return f"  {_duration(remaining * sum(self._seconds) / len(self._seconds))} left"

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


def _division(groups: Sequence[str], parts: Partition) -> str:
    """How images are divided, as text."""
    if parts.folds:
        return f"all for training, and for calibration in {len(parts.folds)} folds"
    return (
        f"{len(parts.fit):,} for training, {len(parts.validation):,} for validation, {len(parts.calibration):,} for "
        f"calibration{_in_groups([groups[index] for index in parts.calibration])}"
    )


def _in_groups(groups: Sequence[str]) -> str:
    """The number of groups as text; empty if every image is its own group."""
    number = len(set(groups))
    return "" if number == len(groups) else f" in {number:,} groups"


def _duration(seconds: float) -> str:
    """Seconds as text, rounded: 8.4 s, 41 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"


class _Rate(ProgressColumn):
    """Images per second, as soon as it is known."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} images/s" if task.total and task.speed else "")


class _TimeLeft(ProgressColumn):
    """The remaining time, as soon as it can be estimated."""

    def render(self, task: Task) -> Text:
        seconds = task.time_remaining if task.total else None
        return Text("" if seconds is None else f"{_duration(seconds)} left")
