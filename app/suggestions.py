"""Suggestions for misspelt words in error messages."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error message; empty if no known word is similar. Ignores case."""
    lowered = {each.lower(): each for each in known}
    close = difflib.get_close_matches(word.lower(), list(lowered), n=1)
    return f"; did you mean {lowered[close[0]]!r}?" if close else ""
