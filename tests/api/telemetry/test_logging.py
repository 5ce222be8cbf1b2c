"""Log lines of our own and of the libraries have one form, tracebacks and warnings included."""

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest

from app.api.telemetry import logging as logs
from tests.support import ROOT

_SPEAK = """
import logging, warnings, structlog
from app.api.telemetry import logging as logs
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


_TELL = """
import os
from app.api.telemetry import logging as logs
logs.configure(FORMAT, LEVEL)
logs.write_events([{"event": "request", "number": number, "filling": "x" * 900} for number in range(20)])
logs.write_events([{"event": "request", "number": 20, "filling": "x" * 9000}])
logs.write_events([])
"""


def told(log_format: str, level: str) -> str:
    program = _TELL.replace("FORMAT", repr(log_format)).replace("LEVEL", repr(level))
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stderr  # fmt: skip


def test_lines_told_together_are_as_if_told_one_by_one() -> None:
    lines = [json.loads(line) for line in told("json", "info").splitlines()]
    assert [line["number"] for line in lines] == list(range(21))
    assert {line["level"] for line in lines} == {"info"}
    assert all(datetime.fromisoformat(line["timestamp"]).tzinfo for line in lines)
    console = told("console", "info").splitlines()
    assert [f"number={number}" in line for number, line in enumerate(console)] == [True] * 21


def test_who_wants_warnings_alone_gets_no_lines_of_requests() -> None:
    assert told("json", "warning") == ""


def test_lines_told_together_leave_in_writes_that_a_pipe_keeps_whole(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(logs, "_write", writes.append)
    caplog.set_level(logging.INFO)
    logs.write_events([{"event": "request", "filling": "x" * 900} for _ in range(20)])
    assert 4 < len(writes) < 10
    assert max(map(len, writes)) <= 4096
    assert all(write.endswith(b"\n") for write in writes)


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
