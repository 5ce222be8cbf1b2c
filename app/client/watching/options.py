"""The options of ``python -m app.client watch``."""

import argparse
import getpass
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.client import arguments
from app.client.api_requests import ScoringOptions
from app.client.watching.broker import PASSWORD_VARIABLE, Broker
from app.client.watching.deliveries import Occasion
from app.client.watching.webhook import SECRET_VARIABLE, key_of
from app.command_line import Parser, add_help

_JOURNAL: Final = "verdicts.jsonl"
_DESCRIPTION: Final = """\
Scores each image in a folder once it is complete, writes a line about it, and sorts it into an archive.

  python -m app.client watch /var/camera --archive /var/camera-archive
  python -m app.client watch incoming --journal verdicts.jsonl        leaves the images where they are
"""
_EPILOG: Final = """\
An image is complete when it has not changed for --settle seconds and no process of this machine has it open for
writing (Linux). A file that cannot be read as an image is tried again when it has not changed for ten times as long.
The journal has one line of JSON per image, with its SHA-256, the model version, threshold, rate, score and p-value.
Killed at any time, the next run continues: no image is lost, and none has two lines. If the disk is full or the service
away, the watcher waits. One watcher per folder.

exit status: 0 stopped by a signal or done (--once), 2 could not start
"""


@dataclass(frozen=True)
class Options:
    """The parsed command line."""

    folder: Path
    archive: Path | None
    keep: bool
    journal: Path
    operator: str | None
    settle_s: float
    poll_s: float | None
    once: bool
    each: bool
    webhook: str | None
    webhook_secret: str
    mqtt: str | None
    on: Occasion
    scoring: ScoringOptions
    concurrency: int
    url: str
    api_key: str | None
    timeout_s: float


def parse_options(words: list[str]) -> Options:
    """Parses what follows ``watch``.

    Raises:
        SystemExit: wrong usage, or ``--help``.
    """
    parser = _parser()
    given = parser.parse_args(words)
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is not a folder")
    if given.journal is None and given.archive is None:
        parser.error("--journal is needed without --archive")
    if given.copy and given.archive is None:
        parser.error("--copy needs --archive")
    secret = os.environ.get(SECRET_VARIABLE, "")
    if given.webhook:
        try:
            key_of(secret)
        except ValueError as error:
            parser.error(f"--webhook needs {SECRET_VARIABLE}: {error}")
    return Options(
        folder=given.folder,
        archive=given.archive,
        keep=given.copy,
        journal=given.journal or given.archive / _JOURNAL,
        operator=given.operator or _user(),
        settle_s=given.settle,
        poll_s=given.poll,
        once=given.once,
        each=sys.stdout.isatty() if given.lines is None else given.lines,
        webhook=given.webhook,
        webhook_secret=secret,
        mqtt=given.mqtt,
        on=given.on,
        scoring=ScoringOptions(given.model, given.false_alarm_rate, given.threshold),
        concurrency=given.concurrency,
        url=given.url,
        api_key=given.api_key,
        timeout_s=given.timeout,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="python -m app.client watch", usage="%(prog)s FOLDER [options]", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="searched with its sub-folders for image files, by their suffix"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--archive", type=Path, metavar="DIR", help="move each image to DIR/YYYY-MM-DD/normal, anomaly or rejected"
    )
    output.add_argument("--copy", action="store_true", help="copy to the archive, and leave the images in the folder")
    output.add_argument(
        "--journal", type=Path, metavar="FILE", help=f"append a line per image (default: {_JOURNAL} in the archive)"
    )
    output.add_argument("--operator", metavar="NAME", help="for the journal (default: the user who runs the command)")
    output.add_argument(
        "--lines",
        action=argparse.BooleanOptionalAction,
        help="print a line per image; else a line per minute (default: on a terminal)",
    )
    telling = parser.add_argument_group("telling others")
    telling.add_argument(
        "--webhook",
        type=arguments.url,
        metavar="URL",
        help=f"post each entry to this URL, signed with the secret in {SECRET_VARIABLE} (standardwebhooks.com)",
    )
    telling.add_argument(
        "--mqtt",
        type=_broker,
        metavar="URL",
        help="publish each entry with QoS 1: mqtt://[USER@]HOST[:PORT]/TOPIC, or mqtts:// with TLS; the password is in "
        f"{PASSWORD_VARIABLE}; TOPIC/status is online or offline",
    )
    telling.add_argument(
        "--on",
        choices=["anomaly", "all"],
        default="anomaly",
        help="which entries: those of anomalies and of rejected images, or all",
    )
    arrivals = parser.add_argument_group("arrivals")
    arrivals.add_argument(
        "--settle", type=arguments.seconds, default=1.0, metavar="S", help="seconds without a change, see below"
    )
    arrivals.add_argument(
        "--poll",
        type=arguments.seconds,
        metavar="S",
        help="search the folder every S seconds, without notifications (default: every 2 s on a network share, where "
        "there are none)",
    )
    arrivals.add_argument("--once", action="store_true", help="end when all images in the folder are done")
    arguments.add_scoring(parser)
    service = arguments.add_service(parser)
    service.add_argument(
        "--concurrency", type=arguments.positive_int, default=4, metavar="N", help="images that are scored at a time"
    )
    add_help(service)
    return parser


def _broker(text: str) -> str:
    if find_spec("paho") is None:
        raise argparse.ArgumentTypeError("paho-mqtt is not installed; run: pip install paho-mqtt")
    try:
        Broker.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no entry for the user
        return None
