"""Logging to standard error as JSON lines or as readable text."""

import logging
import os
import sys
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog

_STDERR: Final = 2
_PIPE_BUF: Final = 4096  # POSIX: writes up to this size to a pipe are not interleaved


def configure(log_format: str, level: str) -> None:
    """Writes events of the service and of libraries to standard error, in one format.

    Events of the service bypass the standard library's handlers, since every request writes one.

    Args:
        log_format: ``json`` or ``console``.
        level: the lowest level to log.
    """
    renderers: list[structlog.typing.Processor] = (
        [_json]
        if log_format == "json"
        else [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # does not show the values of variables
            ),
        ]
    )
    structlog.configure(
        processors=renderers,
        logger_factory=lambda *_: _StandardError(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)  # as log events


def write_events(events: Iterable[MutableMapping[str, Any]]) -> None:
    """Logs events of level info in few writes, which is faster than calling structlog's ``info`` for each."""
    if not logging.getLogger().isEnabledFor(logging.INFO):
        return
    processors, lines = structlog.get_config()["processors"], b""
    now = _now()
    for event in events:
        event["timestamp"] = now
        rendered: Any = event
        for process in processors:
            rendered = process(None, "info", rendered)
        line = _line(rendered)
        if lines and len(lines) + len(line) > _PIPE_BUF:
            _write(lines)
            lines = b""
        lines += line
    _write(lines)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _line(text: str) -> bytes:
    return text.encode(errors="backslashreplace") + b"\n"


def _write(lines: bytes) -> None:
    """Writes to standard error. Errors are ignored, since a closed pipe must not fail requests."""
    with suppress(OSError):
        os.write(_STDERR, lines)


class _StandardError:
    """structlog's logger: writes whole lines to standard error."""

    def msg(self, line: str) -> None:
        _write(_line(line))

    debug = info = warning = error = critical = exception = log = msg


def _json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    """Renders an event. One processor is faster than structlog's four, and it runs for every request."""
    event["level"] = method
    if "timestamp" not in event:
        event["timestamp"] = _now()
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return orjson.dumps(event, default=repr).decode()
