"""What training refuses, each in one line that says what to do about it."""


class TrainingError(Exception):
    """The run cannot start, or cannot go on; the text tells a person why and what would help."""
