"""Errors of the benchmarks."""


class BenchmarkError(Exception):
    """A server did not start, or the load could not be run; the text gives the reason, on one line."""
