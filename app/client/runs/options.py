"""The options of the command line: definition, help texts, parsing."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.client import arguments
from app.client.api_requests import ScoringOptions
from app.client.retry import Retry
from app.client.runs.rows import FORMATS
from app.command_line import Parser, add_help

_FORMAT_BY_SUFFIX: Final = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_RETRY_TOTAL_S: Final = 120.0


_DESCRIPTION: Final = """\
Scores images on a running service and reports for each whether it is an anomaly.

  python -m app.client photos/                        prints a table on a terminal
  python -m app.client 'parts/**/*.png' -o parts.csv  continues where it stopped, if run again
  python -m app.client new.png --fail-on-anomaly      for scripts: exit status 1 if the image is an anomaly
"""

_EPILOGUE: Final = """\
Rows are in the order of the responses. With --output, images that are already in the file are not scored again: run
the same command again to continue an interrupted run. An incomplete last row is removed. Rows of another model or
false-alarm rate (or threshold) are never mixed into one file. With --fdr, rows have no verdict until the last image is
scored; then all rows of the file are decided together, those of earlier runs too. Without --output they are held in
memory until then.

exit status:
  0    done
  1    with --fail-on-anomaly: at least one anomaly, earlier runs of the same file included
  2    could not start or had to stop: wrong usage, no service, wrong key, unknown model, unusable file
  3    done, but some images could not be scored (see the error column)
  130  interrupted with Ctrl-C
  141  standard output was closed by the reader
"""


@dataclass(frozen=True)
class Options:
    """The parsed command line, with all defaults resolved."""

    paths: tuple[Path, ...]
    url: str
    api_key: str | None
    scoring: ScoringOptions
    fdr: float | None
    format: str
    output: Path | None
    save_images: Path | None
    fail_on_anomaly: bool
    concurrency: int
    timeout_s: float
    retry: Retry
    progress: bool


def parse_options(arguments: list[str] | None) -> Options:
    """Parses the command line; ``None`` means ``sys.argv``.

    Raises:
        SystemExit: wrong usage, or ``--help``.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    row_format = given.format or _default_format(parser, given.output)
    if given.output and row_format == "table":
        parser.error("--output does not support the table format; use --format csv or jsonl")
    if given.fdr is not None and given.save_images:
        parser.error("--save-images sorts by verdicts, which --fdr gives only after the last image; use one of them")
    rows_on_terminal = not given.output and row_format != "table" and sys.stdout.isatty()
    return Options(
        paths=tuple(given.paths),
        url=given.url,
        api_key=given.api_key,
        scoring=ScoringOptions(given.model, given.false_alarm_rate, given.threshold),
        fdr=given.fdr,
        format=row_format,
        output=given.output,
        save_images=given.save_images,
        fail_on_anomaly=given.fail_on_anomaly,
        concurrency=given.concurrency,
        timeout_s=given.timeout,
        retry=Retry(retries=given.retries, total_s=_RETRY_TOTAL_S),
        progress=sys.stderr.isatty() and not rows_on_terminal if given.progress is None else given.progress,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="python -m app.client",
        usage="%(prog)s PATH [PATH …] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOGUE,
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="image file, whatever its name; folder, searched recursively for image files; or quoted glob pattern, "
        "where ** matches any folders. Hidden and system files (.x, Thumbs.db, @eaDir, …) are passed over, links to "
        "folders followed once",
    )
    sensitivity = arguments.add_scoring(parser)
    sensitivity.add_argument(
        "--fdr",
        type=arguments.rate,
        metavar="RATE",
        help="instead of a rate: decide all images of the run together, once the last is scored, so that on average "
        "at most this share of those called anomalies is normal (Benjamini-Hochberg)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "-f",
        "--format",
        choices=["table", *FORMATS],
        help="default: by the suffix of --output (.csv, .jsonl, .ndjson), else table on a terminal and csv elsewhere",
    )
    output.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="append rows to this file, for images it does not contain yet"
    )
    output.add_argument(
        "--save-images",
        "--save-pictures",
        type=Path,
        metavar="DIR",
        help="save every image that this run scores as a PNG file, at its own size and with boxes around its regions, "
        "in DIR/normal and DIR/anomaly; if the model has no map or the image cannot be read here, a picture that the "
        "service draws",
    )
    output.add_argument("--fail-on-anomaly", action="store_true", help="exit with status 1 if there is an anomaly")
    output.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="progress bar on standard error (default: if it is a terminal)",
    )
    service = arguments.add_service(parser)
    service.add_argument(
        "--concurrency", type=arguments.positive_int, default=4, metavar="N", help="concurrent requests"
    )
    service.add_argument(
        "--retries",
        type=arguments.non_negative_int,
        default=8,
        metavar="N",
        help="retries of a request if the service is busy, restarting or unreachable, "
        f"for {_RETRY_TOTAL_S:.0f} s at most",
    )
    add_help(service)
    return parser


def _default_format(parser: argparse.ArgumentParser, output: Path | None) -> str:
    if output is None:
        return "table" if sys.stdout.isatty() else "csv"
    if output.suffix.lower() not in _FORMAT_BY_SUFFIX:
        parser.error(f"cannot derive the format from the suffix of {output}; add --format csv or jsonl")
    return _FORMAT_BY_SUFFIX[output.suffix.lower()]
