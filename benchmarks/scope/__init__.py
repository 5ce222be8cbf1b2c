"""Measures what a published model finds out of scope: ``python -m benchmarks.scope``."""
