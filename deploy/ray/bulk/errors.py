"""Errors of the job."""


class CannotRun(Exception):
    """The job cannot start; the text is one line with the reason and how to solve it."""
