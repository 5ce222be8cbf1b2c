"""``python -m training.benchmark``: the former name of ``python -m benchmarks.accuracy``."""

import sys
from importlib import import_module


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    # Not an import statement, because training does not depend on benchmarks.
    return int(import_module("benchmarks.accuracy").main())


if __name__ == "__main__":
    sys.exit(main())
