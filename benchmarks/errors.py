"""Errors of the benchmarks, and how a command reports them."""

import sys
from collections.abc import Callable

from app.inference.errors import InferenceError
from training.errors import TrainingError


class BenchmarkError(Exception):
    """A server did not start, or the load could not be run; the text gives the reason, on one line."""


def exit_status(work: Callable[[], None]) -> int:
    """Does the work of a command; returns 0, or 1 after an expected error, whose text is printed on one line."""
    try:
        work()
    except (BenchmarkError, InferenceError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
