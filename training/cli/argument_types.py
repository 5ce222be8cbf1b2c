"""Argument types of the command lines: each parses one value, or says in one line what is wrong with it."""

import argparse
import re
from math import isfinite

import torch

from app.inference.bundles.manifest import NAME_PATTERN
from app.inference.images.model_input import SIDES, Levels, known_colour
from training.data.interest import Rectangle
from training.data.levels import LevelsRule


def labels(text: str) -> tuple[int, ...]:
    """An argparse type: labels of a built-in set, separated by commas."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a label or a comma-separated list of labels")
    return tuple(int(label) for label in text.split(","))


def size(text: str) -> tuple[int, int]:
    """An argparse type: (height, width) of a model's input."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form SIDE or HEIGHTxWIDTH")
    height, width = int(match[1]), int(match[2] or match[1])
    if not (SIDES[0] <= height <= SIDES[1] and SIDES[0] <= width <= SIDES[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: sides must have from {SIDES[0]} to {SIDES[1]} pixels")
    return height, width


def levels(text: str) -> LevelsRule:
    """An argparse type: which values become black and white."""
    if text in {"auto", "full"}:
        return "auto" if text == "auto" else "full"
    try:
        black, white = map(float, text.split(":"))
    except ValueError:
        black = white = 0.0
    if not (isfinite(black) and isfinite(white) and black < white):
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto, full nor of the form LOW:HIGH, such as 0:4095")
    return Levels(black, white)


def colour(text: str) -> str:
    """An argparse type: the name of a colour, or #rrggbb."""
    try:
        return known_colour(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def groups_rule(text: str) -> str:
    """An argparse type: how images form groups, see ``training.data.folders.group_of``."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither folder, none nor a regular expression: {error}"
        ) from error
    return text


def rectangle(text: str) -> Rectangle:
    """An argparse type: left, top, width and height, all in pixels or all in percent."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)" + r",(\d+(?:\.\d+)?)(\2)" * 3, text.replace(" ", ""))
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form X,Y,W,H or X%,Y%,W%,H%")
    left, top, width, height = map(float, match.groups()[::2])
    return Rectangle(left, top, width, height, in_percent=bool(match[2]))


def name(text: str) -> str:
    """An argparse type: the name of a model."""
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not valid: up to 64 letters, digits, '.', '_' and '-', the first a letter or digit"
        )
    return text


def rate(text: str) -> float:
    """An argparse type: a false-alarm rate in (0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return value


def seed(text: str) -> int:
    """An argparse type: a whole number."""
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at most 18 digits")
    return int(text)


def device(text: str) -> str:
    """An argparse type: a device of torch's, or auto."""
    try:
        return text if text == "auto" else str(torch.Generator(text).device)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not available: {str(error).splitlines()[0]}") from error


class positive:  # noqa: N801  reads as a type in add_argument
    """An argparse type: a number above zero."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def __call__(self, text: str) -> float:
        """The number."""
        try:
            value = self.kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
        return value
