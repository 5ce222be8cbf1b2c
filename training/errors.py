"""Errors of training. Each is one line that also says what would help."""

import difflib
from collections.abc import Iterable


class TrainingError(Exception):
    """The run cannot start or cannot continue."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error; empty where nothing is close."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
