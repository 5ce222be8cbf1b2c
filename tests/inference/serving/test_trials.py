"""Runs the cases of trials in a process of their own.

The service forks before it has threads and models. A process that has run other tests has dozens of threads, which can
hold locks in a fork, and thousands of modules, which coverage walks after each fork: for a minute.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support import ROOT

CASES: Final = Path(__file__).with_name("trial_cases.py")


def test_trials_of_versions_in_child_processes() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
