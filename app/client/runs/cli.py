"""The command line: scores files and folders, writes one row per image."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from app.client.arguments import Exit
from app.client.clients import AsyncAnomalyClient
from app.client.errors import ClientError
from app.client.model_choice import CannotRun, model_card
from app.client.responses import ModelCard
from app.client.runs.batch_scoring import score_files
from app.client.runs.file_search import NothingFound, find_images, path_key
from app.client.runs.joint_verdicts import JointVerdicts
from app.client.runs.options import Options, parse_options
from app.client.runs.result_file import PreviousResults, ResultFile, UnusableResultFile
from app.client.runs.rows import FORMATS, Row, RowFormat, RowWriter, sensitivity
from app.client.runs.terminal import PipeConsole, Table, Tally, print_error, progress_bar
from app.files.search import PassedOver


class _StdoutWriter:
    """Writes rows to standard output, for another program."""

    def __init__(self, row_format: RowFormat) -> None:
        self._format = row_format
        self._stdout = sys.stdout.buffer
        self._stdout.write(row_format.header)
        self._stdout.flush()

    def write(self, rows: Sequence[Row]) -> None:
        """Writes rows and flushes them."""
        self._stdout.write(b"".join(map(self._format.encode, rows)))
        self._stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = parse_options(arguments)
    tally = Tally()
    try:
        asyncio.run(_run(options, tally))
    except KeyboardInterrupt:
        print_error(f"stopped; {_resume_hint(options, tally)}")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit would fail again
        return Exit.PIPE_CLOSED
    except (CannotRun, NothingFound, UnusableResultFile, ClientError, OSError) as error:
        print_error(f"error: {error}")
        if 0 < tally.done < tally.total:
            print_error(_resume_hint(options, tally))
        return Exit.CANNOT_RUN
    for line in [tally.summary(), *tally.passed_over.lines()]:
        print_error(line)
    if options.fail_on_anomaly and tally.all["anomaly"]:
        return Exit.ANOMALY
    return Exit.SOME_REJECTED if tally.all["rejected"] else Exit.DONE


async def _run(options: Options, tally: Tally) -> None:
    tally.total = sum(1 for _ in find_images(options.paths, tally.passed_over, exclude=options.save_images))
    client = AsyncAnomalyClient(options.url, api_key=options.api_key, timeout_s=options.timeout_s, retry=options.retry)
    async with client as service:
        card = await model_card(service, options.scoring.model, url=options.url, api_key=options.api_key)
        threshold = options.scoring.threshold
        rate = None if threshold is not None else options.scoring.false_alarm_rate or card.false_alarm_rate
        decided_by = sensitivity(rate, threshold, options.fdr)
        _require_flaggable(card, options.fdr)
        with ExitStack() as stack:
            console = PipeConsole(stderr=True, force_terminal=options.progress or None)
            writer, previous = _open_writer(options, console, stack)
            _check_previous(options, previous, card.name, decided_by)
            if previous.outcomes:
                earlier = (previous.outcomes.get(path_key(path)) for path in _image_paths(options))
                tally.previous.update(outcome for outcome in earlier if outcome)
            paths = (path for path in _image_paths(options) if path_key(path) not in previous.outcomes)
            bar = stack.enter_context(progress_bar(console, shown=options.progress))
            task = bar.add_task("", total=tally.total, completed=tally.done, anomalies=tally.all["anomaly"])

            joint = None if options.fdr is None else JointVerdicts(writer, options.fdr)

            def on_rows(rows: Sequence[Row]) -> None:
                (joint or writer).write(rows)
                tally.outcomes.update(row.outcome for row in rows)
                bar.update(task, completed=tally.done, anomalies=tally.all["anomaly"])

            await score_files(
                service,
                paths,
                options.scoring,
                concurrency=options.concurrency,
                on_rows=on_rows,
                save_to=options.save_images,
            )
            if joint:
                outcomes = joint.decide()
                found = [(key, outcomes[key]) for key in map(path_key, _image_paths(options)) if key in outcomes]
                tally.previous = Counter(outcome for key, outcome in found if key in previous.outcomes)
                tally.outcomes = Counter(outcome for key, outcome in found if key not in previous.outcomes)


def _image_paths(options: Options) -> Iterator[Path]:
    """Searches again on every call, to keep memory bounded."""
    return find_images(options.paths, PassedOver(), exclude=options.save_images)


def _open_writer(options: Options, console: Console, stack: ExitStack) -> tuple[RowWriter, PreviousResults]:
    """Opens the output; returns the results of earlier runs too, if it is a file."""
    if options.output:
        file = stack.enter_context(ResultFile(options.output, FORMATS[options.format]))
        return file, file.previous
    if options.format == "table":
        # A table and a progress bar on the same terminal must share a console, or they overwrite each other.
        shared = options.progress and sys.stdout.isatty() and sys.stderr.isatty()
        return Table(console if shared else PipeConsole()), PreviousResults()
    return _StdoutWriter(FORMATS[options.format]), PreviousResults()


def _require_flaggable(card: ModelCard, fdr: float | None) -> None:
    """Refuses a rate below the smallest p-value of the model: no image could ever be flagged.

    Raises:
        CannotRun: the rate is too small.
    """
    groups = int(card.document["calibration"]["groups"])
    if fdr is not None and fdr * (groups + 1) < 1:
        raise CannotRun(
            f"with --fdr {fdr:g} no image can be flagged: {card.name} gives no p-value below {1 / (groups + 1):.4g}"
        )


def _check_previous(options: Options, previous: PreviousResults, model: str, decided_by: str) -> None:
    """Checks that the rows of this run can be appended to those of earlier runs.

    Raises:
        CannotRun: the file has rows of another model, another false-alarm rate or another threshold.
    """
    if previous.repaired:
        print_error(f"removed an incomplete last row from {options.output}")
    models = {f"model {name}" for name in previous.models}
    for found, expected in ((models, f"model {model}"), (previous.sensitivities, decided_by)):
        if found - {expected}:
            values = ", ".join(sorted(found))
            raise CannotRun(f"{options.output} has rows of {values}, not of {expected}; choose another --output")


def _resume_hint(options: Options, tally: Tally) -> str:
    if not tally.done:
        return "nothing was scored"
    progress = f"{tally.done:,} of {tally.total:,} images"
    if options.output:
        return f"{progress} are in {options.output}; run the same command again to continue"
    return f"{progress} were scored; with --output FILE, an interrupted run can be continued"
