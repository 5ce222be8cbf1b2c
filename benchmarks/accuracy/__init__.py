"""Measures accuracy, reproducibly: ``python -m benchmarks.accuracy``."""

from benchmarks.accuracy.command import main

__all__ = ["main"]
