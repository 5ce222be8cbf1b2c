"""``python -m app`` starts the service. ``--help`` lists every option with its default."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from threading import Thread
from typing import NoReturn

import structlog
import uvicorn

from app.api.feedback import Feedback
from app.api.http.listening import is_loopback, require_free
from app.api.http.shutdown import LONGEST_S
from app.api.labelled_images import LabelledImages
from app.api.settings import PREFIX, SHARED_METRICS, BadSettings, Settings, read_settings
from app.api.telemetry import logging
from app.api.workers import require_memory
from app.inference.bundles.devices import device_named
from app.inference.bundles.store import ModelStore
from app.inference.decoding_processes.confinement import landlock_version
from app.inference.decoding_processes.process import require_processes
from app.inference.errors import DecodingUnavailable, DeviceUnavailable, LabelNotKept
from app.inference.machine import available_bytes
from app.inference.serving.store_access import STORE_TIMEOUT_S

_log = structlog.get_logger(__name__)

_GRACE_S = LONGEST_S - 1  # to finish accepted requests; the rest is for ending the process
_KEEP_ALIVE_S = 75  # above the 60 s of common proxies, so that they never reuse a connection that this server closes


def main() -> int:
    """Reads the settings and serves until a signal stops the process. Returns the exit status."""
    try:
        settings = read_settings(sys.argv[1:])
        require_memory(settings.workers, settings.max_memory or available_bytes())
        require_free(settings.host, settings.port)
        _create_label_file(settings)
        require_processes()
        _require_device(settings.device)
    except (BadSettings, DecodingUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ.update(settings.as_environment())  # worker processes read their settings from it
    logging.configure(settings.log_format, settings.log_level)
    _warn_of_missing_model(settings)
    _warn_if_open(settings)
    if not landlock_version():
        _log.info("decode processes are not sandboxed: this system does not support Landlock")
    if settings.workers == 1:
        # uvicorn stops gracefully on SIGTERM and then raises it again; the exit status must be 0.
        signal.signal(signal.SIGTERM, _exit)
        _serve(settings)
    else:
        with tempfile.TemporaryDirectory(prefix="anomaly-metrics-") as folder:
            os.environ[SHARED_METRICS] = folder
            _serve(settings)
    return 0


def _require_device(name: str) -> None:
    """Checks that models can compute there before any worker starts.

    Raises:
        BadSettings: they cannot.
    """
    try:
        device_named(name)
    except DeviceUnavailable as error:
        raise BadSettings(f"{PREFIX}DEVICE: {error}") from error


def _warn_of_missing_model(settings: Settings) -> None:
    """Logs what the store has if it lacks the default model. The service starts: a model can be published later."""
    thread = Thread(target=_log_missing_model, args=[settings], daemon=True)
    thread.start()
    thread.join(STORE_TIMEOUT_S)  # a network file system may not answer; the service starts nevertheless


def _log_missing_model(settings: Settings) -> None:
    store = ModelStore(settings.model_store)
    if missing := store.why_missing(settings.model):
        _log.error(f"{PREFIX}{'MODEL' if store.root.is_dir() else 'MODEL_STORE'}: {missing}")


def _warn_if_open(settings: Settings) -> None:
    """Logs that other machines can use the service without a key."""
    if not settings.api_keys and not is_loopback(settings.host):
        _log.warning(
            f"{PREFIX}API_KEYS: everybody who reaches port {settings.port} of {settings.host} can use the service, "
            "because no key is required"
        )


def _create_label_file(settings: Settings) -> None:
    """Creates the label file, its secret, and the folder for images, before any worker starts.

    Raises:
        BadSettings: one of them cannot be created, or the secret cannot be read.
    """
    if settings.feedback_path:
        try:
            Feedback(Path(settings.feedback_path))
        except LabelNotKept as error:
            raise BadSettings(f"{PREFIX}FEEDBACK_PATH: {error}") from error
    if settings.feedback_images is not None:
        try:
            LabelledImages(settings.feedback_images)
        except LabelNotKept as error:
            raise BadSettings(f"{PREFIX}FEEDBACK_IMAGES: {error}") from error


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
        headers=[("X-Content-Type-Options", "nosniff")],
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )


def _exit(*_: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
