"""The options of ``python -m app.client watch``."""

import argparse
import getpass
import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.client import arguments
from app.client.api_requests import ScoringOptions
from app.client.watching.broker import PASSWORD_VARIABLE, Broker
from app.client.watching.deliveries import Occasion
from app.client.watching.sources.address import URL_VARIABLE, Address
from app.client.watching.sources.cameras import STREAMS_MISSING, can_stream
from app.client.watching.sources.trigger import Listening
from app.client.watching.webhook import SECRET_VARIABLE, key_of
from app.command_line import Parser, add_help

_JOURNAL: Final = "verdicts.jsonl"
_SETTLE_S: Final = 1.0
_EVERY_S: Final = 1.0
_CAMERA_TIMEOUT_S: Final = 10.0
_DESCRIPTION: Final = """\
Scores each image in a folder once it is complete, or pictures of a camera, writes a line about each, and sorts them
into an archive.

  python -m app.client watch /var/camera --archive /var/camera-archive
  python -m app.client watch incoming --journal verdicts.jsonl        leaves the images where they are
  python -m app.client watch rtsp://camera/stream --every 1s --archive archive
  python -m app.client watch http://camera/snapshot.jpg --trigger 9000 --archive archive
"""
_EPILOG: Final = f"""\
An image is complete when it has not changed for --settle seconds and no process of this machine has it open for
writing (Linux). A file that cannot be read as an image is tried again when it has not changed for ten times as long.
The journal has one line of JSON per image, with its SHA-256, the model version, threshold, rate, score and p-value.
Killed at any time, the next run continues: no image is lost, and none has two lines. If the disk is full or the service
away, the watcher waits. One watcher per folder, one per camera.

A picture of a camera is the newest when it is taken, and none is taken while the one before has no verdict. A camera
that is away is tried again after growing pauses. Give an address with a password in {URL_VARIABLE}.

exit status: 0 stopped by a signal or done (--once), 2 could not start
"""


@dataclass(frozen=True)
class FolderOptions:
    """A folder, and when its images are complete."""

    folder: Path
    settle_s: float
    poll_s: float | None
    once: bool


@dataclass(frozen=True)
class CameraOptions:
    """A camera, and when its pictures are taken.

    Attributes:
        name: for the journal and the names of files.
        spool: the folder of the picture in progress; in the archive, so that moving it takes no room.
        every_s: seconds from one picture to the next; None: only for the trigger.
        timeout_s: how long the camera may give no picture before it counts as away.
        answer_s: how long a trigger waits for its verdict.
    """

    address: Address
    name: str
    spool: Path
    every_s: float | None
    trigger: Listening | None
    timeout_s: float
    answer_s: float
    once: bool


@dataclass(frozen=True)
class Options:
    """The parsed command line."""

    source: FolderOptions | CameraOptions
    archive: Path | None
    keep: bool
    journal: Path
    operator: str | None
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

    @property
    def camera(self) -> str | None:
        """The name of the camera; None if a folder is watched."""
        return self.source.name if isinstance(self.source, CameraOptions) else None


def parse_options(words: list[str]) -> Options:
    """Parses what follows ``watch``.

    Raises:
        SystemExit: wrong usage, or ``--help``.
    """
    parser = _parser()
    given = parser.parse_args(words)
    source = _camera(given, parser) if isinstance(given.source, Address) else _folder(given, parser)
    secret = os.environ.get(SECRET_VARIABLE, "")
    if given.webhook:
        try:
            key_of(secret)
        except ValueError as error:
            parser.error(f"--webhook needs {SECRET_VARIABLE}: {error}")
    return Options(
        source=source,
        archive=given.archive,
        keep=given.copy,
        journal=given.journal or given.archive / _JOURNAL,
        operator=given.operator or _user(),
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


def secret_source(words: list[str]) -> str | None:
    """The address of a camera that follows ``watch`` if others must not see it; None otherwise.

    Raises:
        SystemExit: wrong usage, or ``--help``.
    """
    source = _parser().parse_args(words).source
    return source.url if isinstance(source, Address) and source.has_secrets and source.url in words else None


def _folder(given: argparse.Namespace, parser: Parser) -> FolderOptions:
    if given.source is None:
        parser.error(f"a folder or a camera is needed, here or in {URL_VARIABLE}")
    if not given.source.is_dir():
        parser.error(f"{given.source} is not a folder")
    if given.journal is None and given.archive is None:
        parser.error("--journal is needed without --archive")
    if given.copy and given.archive is None:
        parser.error("--copy needs --archive")
    _refuse(
        parser,
        "a camera",
        every=given.every,
        trigger=given.trigger,
        name=given.name,
        camera_timeout=given.camera_timeout,
    )
    return FolderOptions(given.source, given.settle or _SETTLE_S, given.poll, given.once)


def _camera(given: argparse.Namespace, parser: Parser) -> CameraOptions:
    _refuse(parser, "a folder", copy=given.copy or None, settle=given.settle, poll=given.poll)
    if given.archive is None:
        parser.error("--archive is needed for a camera")
    if given.once and given.trigger:
        parser.error("--once does not go with --trigger")
    if not given.source.is_http and not can_stream():
        parser.error(STREAMS_MISSING)
    name = given.name or given.source.name
    return CameraOptions(
        address=given.source,
        name=name,
        spool=given.archive / f".{name}",
        every_s=given.every or (None if given.trigger else _EVERY_S),
        trigger=given.trigger,
        timeout_s=given.camera_timeout or _CAMERA_TIMEOUT_S,
        answer_s=given.timeout,
        once=given.once,
    )


def _refuse(parser: Parser, needed: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            parser.error(f"--{name.replace('_', '-')} is for {needed} only")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m app.client watch", usage="%(prog)s SOURCE [options]", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument(
        "source",
        type=_source,
        nargs="?",
        default=os.environ.get(URL_VARIABLE),
        metavar="SOURCE",
        help="a folder, searched with its sub-folders for image files, by their suffix; or a camera: rtsp[s]://HOST/…, "
        f"tcp://HOST:PORT, http[s]://HOST/…, /dev/videoN (default: the camera in {URL_VARIABLE})",
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
    arrivals = parser.add_argument_group("folder")
    arrivals.add_argument(
        "--settle",
        type=arguments.seconds,
        metavar="S",
        help=f"seconds without a change, see below (default: {_SETTLE_S})",
    )
    arrivals.add_argument(
        "--poll",
        type=arguments.seconds,
        metavar="S",
        help="search the folder every S seconds, without notifications (default: every 2 s on a network share, where "
        "there are none)",
    )
    arrivals.add_argument(
        "--once", action="store_true", help="end when all images in the folder are done, or after one of a camera"
    )
    camera = parser.add_argument_group("camera")
    camera.add_argument(
        "--every",
        type=arguments.duration,
        metavar="TIME",
        help="take a picture every 500ms, 1s, 5min, … (default: 1s, or never with --trigger)",
    )
    camera.add_argument(
        "--trigger",
        type=_listening,
        metavar="HOST:PORT",
        help="take a picture for each GET or POST of http://HOST:PORT/trigger, and answer with its line of the "
        "journal; a PORT alone is for this machine only",
    )
    camera.add_argument(
        "--name", type=_name, metavar="NAME", help="for the journal and file names (default: the camera's host)"
    )
    camera.add_argument(
        "--camera-timeout",
        type=arguments.seconds,
        metavar="S",
        help=f"connect again to a camera that gives no picture for S seconds (default: {_CAMERA_TIMEOUT_S})",
    )
    arguments.add_scoring(parser)
    service = arguments.add_service(parser)
    service.add_argument(
        "--concurrency", type=arguments.positive_int, default=4, metavar="N", help="images that are scored at a time"
    )
    add_help(service)
    return parser


def _source(text: str) -> Path | Address:
    try:
        return Address.parse(text) or Path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _listening(text: str) -> Listening:
    try:
        return Listening.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(
            "a name has letters, digits, '.', '_' and '-', and begins with a letter, a digit or '_'"
        )
    return text


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
