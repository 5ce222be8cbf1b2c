"""Why a job does not begin."""


class CannotRun(Exception):
    """The text says in one line what is wrong and what would help."""
