"""Log lines of our own and of the libraries have one form, tracebacks and warnings included."""

import json
import subprocess
import sys

import pytest

from tests.support import ROOT

_SPEAK = """
import logging, warnings, structlog
from app.api import logs
logs.configure(FORMAT, "info")
structlog.get_logger("ours").info("hello", number=7)
for logger in (structlog.get_logger("ours"), logging.getLogger("theirs")):
    try:
        secret = "swordfish"
        raise ValueError("oops")
    except ValueError:
        logger.exception("failed")
warnings.warn("odd file")
"""


def speak(log_format: str) -> str:
    program = _SPEAK.replace("FORMAT", repr(log_format))
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stderr


def test_json_lines_are_json_and_carry_tracebacks() -> None:
    hello, ours, theirs, warning = (json.loads(line) for line in speak("json").splitlines())
    assert (hello["event"], hello["number"], hello["level"]) == ("hello", 7, "info")
    for failed in (ours, theirs):
        assert failed["level"] == "error"
        assert failed["exception"].startswith("Traceback (most recent call last)")
        assert failed["exception"].endswith("ValueError: oops")
    assert "odd file" in warning["event"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_never_show_the_values_of_variables(log_format: str) -> None:
    text = speak(log_format)
    assert text.count("ValueError: oops") == 2
    assert "swordfish" not in text.replace('secret = "swordfish"', "")
