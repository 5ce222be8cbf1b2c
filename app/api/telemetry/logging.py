"""Logging: one stream on standard error, JSON lines for machines or text for people."""

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
_PIPE_BUF: Final = 4096  # POSIX: so much at once is not mixed with what others write into the same pipe


def configure(log_format: str, level: str) -> None:
    """Sends our own lines and those of the libraries, alike in form, to standard error.

    Every request writes a line. Ours therefore take the short way, straight from structlog to the stream; those
    of the libraries pass through the standard library's handlers.
    """
    rendering: list[structlog.typing.Processor] = (
        [_json]
        if log_format == "json"
        else [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # never the values of variables
            ),
        ]
    )
    structlog.configure(
        processors=rendering,
        logger_factory=lambda *_: _StandardError(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)  # as lines of the log, not between them


def tell(events: Iterable[MutableMapping[str, Any]]) -> None:
    """Logs events of level info, as structlog's ``info`` would one by one, for less: every request writes a line."""
    if not logging.getLogger().isEnabledFor(logging.INFO):
        return
    processors, lines = structlog.get_config()["processors"], b""
    now = _now()
    for event in events:
        event["timestamp"] = now
        told: Any = event
        for process in processors:
            told = process(None, "info", told)
        line = _line(told)
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
    """A reader that has gone away must not break the request that is told of."""
    with suppress(OSError):
        os.write(_STDERR, lines)


class _StandardError:
    """Writes whole lines."""

    def msg(self, line: str) -> None:
        _write(_line(line))

    debug = info = warning = error = critical = exception = log = msg


def _json(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    """One processor for what structlog offers as four: it runs for every request."""
    event["level"] = method
    if "timestamp" not in event:
        event["timestamp"] = _now()
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return orjson.dumps(event, default=repr).decode()
