"""Logging: one stream on standard error, JSON lines for machines or text for people."""

import logging
import os
import sys
from contextlib import suppress
from typing import Any, Final

import orjson
import structlog

_STDERR: Final = 2


def configure(log_format: str, level: str) -> None:
    """Sends our own lines and those of the libraries, alike in form, to standard error.

    Every request writes a line. Ours therefore take the short way, straight from structlog to the stream; those
    of the libraries pass through the standard library's handlers.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
        if log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # never the values of variables
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *last],
        logger_factory=lambda *_: _StandardError(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)  # as lines of the log, not between them


class _StandardError:
    """Writes whole lines. A reader that has gone away must not break the request that is told of."""

    def msg(self, line: str) -> None:
        with suppress(OSError):
            os.write(_STDERR, line.encode(errors="backslashreplace") + b"\n")

    debug = info = warning = error = critical = exception = log = msg


def _json(event: dict[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=repr).decode()
