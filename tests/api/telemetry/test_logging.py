"""Log lines of the service and of libraries have one format, also for tracebacks and warnings."""

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest

from app.api.telemetry import logging as logs
from tests.support import ROOT

_LOG_PROGRAM = """
import logging, warnings, structlog
from app.api.telemetry import logging as logs
logs.configure(FORMAT, "info")
structlog.get_logger("service").info("hello", number=7)
for logger in (structlog.get_logger("service"), logging.getLogger("library")):
    try:
        secret = "swordfish"
        raise ValueError("oops")
    except ValueError:
        logger.exception("failed")
warnings.warn("odd file")
"""


def run_log_program(log_format: str) -> str:
    program = _LOG_PROGRAM.replace("FORMAT", repr(log_format))
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stderr


_WRITE_EVENTS_PROGRAM = """
import os
from app.api.telemetry import logging as logs
logs.configure(FORMAT, LEVEL)
logs.write_events([{"event": "request", "number": number, "filling": "x" * 900} for number in range(20)])
logs.write_events([{"event": "request", "number": 20, "filling": "x" * 9000}])
logs.write_events([])
"""


def run_write_events_program(log_format: str, level: str) -> str:
    program = _WRITE_EVENTS_PROGRAM.replace("FORMAT", repr(log_format)).replace("LEVEL", repr(level))
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stderr  # fmt: skip


def test_write_events_logs_every_event() -> None:
    lines = [json.loads(line) for line in run_write_events_program("json", "info").splitlines()]
    assert [line["number"] for line in lines] == list(range(21))
    assert {line["level"] for line in lines} == {"info"}
    assert all(datetime.fromisoformat(line["timestamp"]).tzinfo for line in lines)
    console = run_write_events_program("console", "info").splitlines()
    assert [f"number={number}" in line for number, line in enumerate(console)] == [True] * 21


def test_write_events_respects_the_log_level() -> None:
    assert run_write_events_program("json", "warning") == ""


def test_write_events_writes_whole_lines_of_at_most_pipe_buf_bytes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(logs, "_write", writes.append)
    caplog.set_level(logging.INFO)
    logs.write_events([{"event": "request", "filling": "x" * 900} for _ in range(20)])
    assert 4 < len(writes) < 10
    assert max(map(len, writes)) <= 4096
    assert all(write.endswith(b"\n") for write in writes)


def test_json_lines_contain_tracebacks() -> None:
    hello, service, library, warning = (json.loads(line) for line in run_log_program("json").splitlines())
    assert (hello["event"], hello["number"], hello["level"]) == ("hello", 7, "info")
    for failed in (service, library):
        assert failed["level"] == "error"
        assert failed["exception"].startswith("Traceback (most recent call last)")
        assert failed["exception"].endswith("ValueError: oops")
    assert "odd file" in warning["event"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_do_not_show_values_of_variables(log_format: str) -> None:
    text = run_log_program(log_format)
    assert text.count("ValueError: oops") == 2
    assert "swordfish" not in text.replace('secret = "swordfish"', "")
