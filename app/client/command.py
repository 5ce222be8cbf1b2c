"""The command line: files and folders in, verdicts out."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Protocol

from rich.console import Console

from app.client.answers import ModelCard
from app.client.bulk import Choice, score_files, show_files
from app.client.clients import DEFAULT_TIMEOUT_S, DEFAULT_URL, KEY_VARIABLE, AsyncAnomalyClient, check_url
from app.client.errors import ClientError, ServiceUnreachable, Unauthorized
from app.client.finding import NothingFound, find_pictures, identity
from app.client.results import Earlier, ResultFile, UnusableResults
from app.client.retrying import Retry
from app.client.rows import FORMATS, Format, Row
from app.client.terminal import PipeConsole, Table, Tally, complain, progress_bar

_SUFFIXES: Final = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_PATIENCE_S: Final = 120.0


class Exit(IntEnum):
    """Exit statuses."""

    DONE = 0
    ANOMALY = 1
    CANNOT_RUN = 2
    SOME_REJECTED = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141


_DESCRIPTION: Final = """\
Scores pictures on a running service and says of each whether it is an anomaly.

  python -m app.client photos/                        a table on the terminal
  python -m app.client 'parts/**/*.png' -o parts.csv  goes on where it stopped, if it is run again
  python -m app.client new.png --fail-on-anomaly      for scripts: exit status 1 if it is one
"""

_EPILOGUE: Final = """\
Rows come in the order of the answers. With --output, pictures that the file already has are not scored again: a
run that broke off, however it ended, goes on with the same command. A half-written row is cut off; rows of another
model or another false-alarm rate are never mixed in.

exit status:
  0    done
  1    with --fail-on-anomaly: at least one anomaly, earlier runs of the same file included
  2    could not run or had to stop: wrong usage, no service, wrong key, unknown model, unusable file
  3    done, but some pictures could not be scored (their rows say why)
  130  interrupted with Ctrl-C
  141  whoever read standard output went away
"""


class CannotRun(Exception):
    """The run cannot begin; the text says why and what would help."""


class Sink(Protocol):
    """Where rows go."""

    def write(self, rows: Sequence[Row]) -> None:
        """Takes rows, in the order in which they come."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    paths: tuple[Path, ...]
    url: str
    api_key: str | None
    choice: Choice
    format: str
    output: Path | None
    save_pictures: Path | None
    fail_on_anomaly: bool
    concurrency: int
    timeout_s: float
    retry: Retry
    progress: bool


def main(arguments: list[str] | None = None) -> int:
    """Parses, scores, prints; returns the exit status."""
    options = _parse(arguments)
    tally = Tally()
    try:
        asyncio.run(_run(options, tally))
    except KeyboardInterrupt:
        complain(f"stopped; {_how_to_go_on(options, tally)}")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at exit
        return Exit.PIPE_CLOSED
    except (CannotRun, NothingFound, UnusableResults, ClientError, OSError) as error:
        complain(f"error: {error}")
        if 0 < tally.done < tally.total:
            complain(_how_to_go_on(options, tally))
        return Exit.CANNOT_RUN
    complain(tally.summary())
    if options.fail_on_anomaly and tally.all["anomaly"]:
        return Exit.ANOMALY
    return Exit.SOME_REJECTED if tally.all["rejected"] else Exit.DONE


async def _run(options: Options, tally: Tally) -> None:
    tally.total = sum(1 for _ in _pictures(options))
    client = AsyncAnomalyClient(options.url, api_key=options.api_key, timeout_s=options.timeout_s, retry=options.retry)
    async with client as service:
        card = await _check(service, options)
        with ExitStack() as opened:
            console = PipeConsole(stderr=True, force_terminal=options.progress or None)
            sink, earlier = _open_sink(options, console, card, opened)
            if earlier.outcomes:
                done = (earlier.outcomes.get(identity(path)) for path in _pictures(options))
                tally.earlier.update(outcome for outcome in done if outcome)
            paths = (path for path in _pictures(options) if identity(path) not in earlier.outcomes)
            bar = opened.enter_context(progress_bar(console, shown=options.progress))
            task = bar.add_task("", total=tally.total, completed=tally.done, anomalies=tally.all["anomaly"])

            def take(rows: Sequence[Row]) -> None:
                sink.write(rows)
                tally.outcomes.update(row.outcome for row in rows)
                bar.update(task, completed=tally.done, anomalies=tally.all["anomaly"])

            if options.save_pictures:
                await show_files(
                    service,
                    paths,
                    options.choice,
                    false_alarm_rate=options.choice.false_alarm_rate or card.false_alarm_rate,
                    folder=options.save_pictures,
                    concurrency=options.concurrency,
                    on_rows=take,
                )
            else:
                await score_files(service, paths, options.choice, concurrency=options.concurrency, on_rows=take)


def _pictures(options: Options) -> Iterator[Path]:
    """Looked up anew each time, which is cheaper than to keep them all."""
    return find_pictures(options.paths, leave_out=options.save_pictures)


def _open_sink(options: Options, console: Console, card: ModelCard, opened: ExitStack) -> tuple[Sink, Earlier]:
    """Where rows go, and what is there already."""
    if options.output:
        results = opened.enter_context(ResultFile(options.output, FORMATS[options.format]))
        _check_earlier(options, results.earlier, card)
        return results, results.earlier
    if options.format == "table":
        # Where the bar and the table share a terminal, one console keeps them apart.
        shared = options.progress and sys.stdout.isatty() and sys.stderr.isatty()
        return Table(console if shared else PipeConsole()), Earlier()
    return _Stream(FORMATS[options.format]), Earlier()


async def _check(service: AsyncAnomalyClient, options: Options) -> ModelCard:
    """Whether the service is there, takes the key and has the model, before anything is sent or written.

    Returns:
        The model's card.
    """
    try:
        await service.health()
        models = await service.models()
    except ServiceUnreachable as error:
        raise CannotRun(f"{error}; is a service running at {options.url}? `python -m app` starts one") from error
    except Unauthorized as error:
        given = options.api_key is not None or os.environ.get(KEY_VARIABLE)
        what = "the service does not take this key" if given else "the service wants a key"
        raise CannotRun(f"{what}; set {KEY_VARIABLE} or give --api-key") from error
    name = options.choice.model or models.default
    for card in models.models:
        if card.name == name:
            return card
    for refused in models.refused:
        if refused.name == name:
            raise CannotRun(f"the service cannot use the model {name}: {refused.reason}")
    there = ", ".join(card.name for card in models.models) or "none"
    raise CannotRun(f"the service has no model {name}; it has {there}")


def _check_earlier(options: Options, earlier: Earlier, card: ModelCard) -> None:
    """Whether rows of this run may stand below those of earlier ones."""
    if earlier.repaired:
        complain(f"{options.output} ended in a half-written row, which was cut off")
    rate = options.choice.false_alarm_rate or card.false_alarm_rate
    for what, found, ours in (
        ("the model", earlier.models, card.name),
        ("the false-alarm rate", earlier.rates, rate),
    ):
        if found - {ours}:
            theirs = ", ".join(map(str, sorted(found, key=str)))
            raise CannotRun(f"{options.output} holds rows of {what} {theirs}, not {ours}; choose another --output")


class _Stream:
    """Rows on standard output, for another program."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._out = sys.stdout.buffer
        self._out.write(form.header)
        self._out.flush()

    def write(self, rows: Sequence[Row]) -> None:
        """Writes rows and sends them off."""
        self._out.write(b"".join(map(self._form.encode, rows)))
        self._out.flush()


def _how_to_go_on(options: Options, tally: Tally) -> str:
    if not tally.done:
        return "nothing was scored"
    so_far = f"{tally.done:,} of {tally.total:,} pictures"
    if options.output:
        return f"{so_far} are in {options.output}; the same command goes on from there"
    return f"{so_far} were scored; with --output FILE the same command would go on from there"


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in {None, False} else super()._get_help_string(action)


def _parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m app.client",
        usage="%(prog)s PATH [PATH …] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOGUE,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="picture file; folder, searched below for picture files (hidden names passed over); or quoted glob "
        "pattern, with ** for any folders",
    )
    how = parser.add_argument_group("how to score")
    how.add_argument("--model", metavar="NAME", help="a model in the service's store (default: the service's)")
    how.add_argument(
        "--false-alarm-rate",
        type=_rate,
        metavar="RATE",
        help="share of normal pictures that may be called anomalies (default: the one calibrated into the model)",
    )
    what = parser.add_argument_group("what comes out")
    what.add_argument(
        "-f",
        "--format",
        choices=["table", *FORMATS],
        help="default: by the suffix of --output (.csv, .jsonl, .ndjson), else table on a terminal and csv elsewhere",
    )
    what.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="append rows to this file, for pictures it does not have yet"
    )
    what.add_argument(
        "--save-pictures",
        type=Path,
        metavar="DIR",
        help="save what the model saw, its reconstruction and the error map, side by side, below DIR/normal and "
        "DIR/anomaly, of the pictures that this run scores; takes one request each, and the rows have no warnings",
    )
    what.add_argument("--fail-on-anomaly", action="store_true", help="end with status 1 if there is an anomaly")
    what.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="progress bar on standard error (default: if that is a terminal)",
    )
    service = parser.add_argument_group("the service")
    service.add_argument("--url", type=_url, default=DEFAULT_URL, help="where it is")
    service.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"the key it wants; better in the environment, as {KEY_VARIABLE}: options can be seen by everyone",
    )
    service.add_argument("--concurrency", type=_count, default=4, metavar="N", help="requests at a time")
    service.add_argument(
        "--timeout", type=_seconds, default=DEFAULT_TIMEOUT_S, metavar="S", help="longest silence of the service"
    )
    service.add_argument(
        "--retries",
        type=_whole,
        default=8,
        metavar="N",
        help=f"further attempts where the service is busy, restarting or out of reach, for {_PATIENCE_S:.0f} s at most",
    )
    given = parser.parse_args(arguments)
    form = given.format or _format_of(parser, given.output)
    if given.output and form == "table":
        parser.error("a table is for people; --output takes --format csv or jsonl")
    raw_on_terminal = not given.output and form != "table" and sys.stdout.isatty()
    return Options(
        paths=tuple(given.paths),
        url=given.url,
        api_key=given.api_key,
        choice=Choice(given.model, given.false_alarm_rate),
        format=form,
        output=given.output,
        save_pictures=given.save_pictures,
        fail_on_anomaly=given.fail_on_anomaly,
        concurrency=given.concurrency,
        timeout_s=given.timeout,
        retry=Retry(retries=given.retries, total_s=_PATIENCE_S),
        progress=sys.stderr.isatty() and not raw_on_terminal if given.progress is None else given.progress,
    )


def _format_of(parser: argparse.ArgumentParser, output: Path | None) -> str:
    if output is None:
        return "table" if sys.stdout.isatty() else "csv"
    if output.suffix.lower() not in _SUFFIXES:
        parser.error(f"the suffix of {output} does not tell its format; add --format csv or jsonl")
    return _SUFFIXES[output.suffix.lower()]


def _url(text: str) -> str:
    try:
        check_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _rate(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 0 and 1")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def _count(text: str) -> int:
    value = _whole(text)
    if value == 0:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return value


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
