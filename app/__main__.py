"""``python -m app`` serves. ``--help`` shows every option with its default."""

import os
import signal
import sys
import tempfile
from typing import NoReturn

import uvicorn

from app.api.settings import SHARED_METRICS, BadSettings, Settings, read_settings
from app.api.telemetry import logging as logs

_GRACE_S = 25  # for what has been accepted; with the second of draining before, inside the 30 s of common supervisors
_KEEP_ALIVE_S = 75  # longer than the 60 s of common proxies, so that they never reuse a connection we close


def main() -> int:
    """Reads the settings and serves until told to stop; returns the exit status."""
    try:
        settings = read_settings(sys.argv[1:])
    except BadSettings as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ.update(settings.as_environment())  # server processes read their settings from there
    logs.configure(settings.log_format, settings.log_level)
    if settings.workers == 1:
        # The server stops gracefully on SIGTERM and then raises it again: that is a good end, not a killed process.
        signal.signal(signal.SIGTERM, _exit)
        _serve(settings)
    else:
        with tempfile.TemporaryDirectory(prefix="anomaly-metrics-") as folder:
            os.environ[SHARED_METRICS] = folder
            _serve(settings)
    return 0


def _serve(settings: Settings) -> None:
    uvicorn.run(
        "app.api.application:from_environment",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="app.api.http.protocol:Protocol",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )


def _exit(*_: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
