"""Errors of training. Each text is one line that also says how to solve the problem."""


class TrainingError(Exception):
    """The run cannot start or cannot continue."""
