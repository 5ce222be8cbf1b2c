"""``python -m training.benchmark``, the former name of ``python -m benchmarks.accuracy``."""

import sys

from benchmarks.accuracy import main

if __name__ == "__main__":
    sys.exit(main())
