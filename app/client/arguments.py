"""What the command lines of the client share: option groups, types of values, exit statuses."""

import argparse
import re
from enum import IntEnum
from typing import Final

from app.client.clients import API_KEY_VARIABLE, DEFAULT_TIMEOUT_S, DEFAULT_URL, check_url

_UNITS_S: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}


class Exit(IntEnum):
    """Exit statuses."""

    DONE = 0
    ANOMALY = 1
    CANNOT_RUN = 2
    SOME_REJECTED = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141


def add_scoring(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Adds the options that choose model and sensitivity; returns the group of the latter."""
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument(
        "--model", metavar="NAME", help="model in the service's store (default: the service's default model)"
    )
    sensitivity = scoring.add_mutually_exclusive_group()
    sensitivity.add_argument(
        "--false-alarm-rate",
        type=rate,
        metavar="RATE",
        help="target share of normal images that are flagged as anomalies (default: the one calibrated into the model)",
    )
    sensitivity.add_argument(
        "--threshold",
        type=threshold,
        metavar="SCORE",
        help="instead of a rate: images with a higher score are anomalies; no false-alarm rate is promised for it",
    )
    return sensitivity


def add_service(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the options that say where the service is."""
    service = parser.add_argument_group("service")
    service.add_argument("--url", type=url, default=DEFAULT_URL, help="base URL of the service")
    service.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"API key; prefer the environment variable {API_KEY_VARIABLE}, as other users can see command lines",
    )
    service.add_argument(
        "--timeout",
        type=seconds,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help="longest time without data from the service, in seconds",
    )
    return service


def url(text: str) -> str:
    """A URL of a service."""
    try:
        check_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def rate(text: str) -> float:
    """A number between 0 and 1, exclusive."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1, exclusive")
    return value


def threshold(text: str) -> float:
    """A number that is not negative."""
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a non-negative number")
    return value


def seconds(text: str) -> float:
    """A positive number."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def duration(text: str) -> float:
    """A positive number of seconds, or of what follows it: ``ms``, ``s``, ``min`` or ``h``."""
    parts = re.fullmatch(r"(.*?)(ms|s|min|h|)", text)
    if parts is None or not 0 < (value := _number(parts[1])) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 500ms, 1s or 5min")
    return value * _UNITS_S[parts[2]]


def positive_int(text: str) -> int:
    """A whole number from 1 on."""
    value = non_negative_int(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def non_negative_int(text: str) -> int:
    """A whole number from 0 on."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a non-negative integer")
    return int(text)


def _number(text: str) -> float:
    """Parses a number; NaN, which fails every comparison, if it is not one."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
