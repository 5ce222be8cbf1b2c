"""The attacked service starts from a process that has imported its libraries: torch alone takes two seconds of CPU."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.attack.target import Launch
from benchmarks.reliability import Process
from tests import warm
from tests.support import ROOT


@pytest.fixture(scope="package")
def launch() -> Launch:
    def start(environment: Mapping[str, str], log: Path, limit_bytes: int) -> Process:
        return warm.Process("app", cwd=ROOT, env=environment, log=log, measure_coverage=False)

    return start
