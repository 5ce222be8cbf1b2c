"""The state of drift monitoring, and the file in which a worker keeps it.

While a worker runs, it locks its own file in the folder: ``worker-0.json``, ``worker-1.json`` and so on. A starting
worker takes the first unlocked file and continues with the state of the worker that stopped or crashed.
"""

import fcntl
import os
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, Final, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.files.writing import replace_file
from app.inference.decisions.drift_test import WINDOW

_FILE: Final = "worker-{}.json"

_log = structlog.get_logger(__name__)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComparedWindow(_Frozen):
    """The result of comparing a window with the calibration scores."""

    at: datetime
    changed: bool
    statistic: float
    higher: bool = Field(description="whether the scores are higher, where they differ most")
    mean_p_value: float


class DriftState(_Frozen):
    """The state of one worker for one version of a model. Its size is bounded."""

    version: str
    calibration_size: int = Field(ge=1)
    ranks: tuple[int, ...] = Field((), max_length=WINDOW - 1, description="ranks of the images since the last window")
    windows: int = Field(0, ge=0)
    alarms: int = Field(0, ge=0)
    since: datetime | None = Field(
        None, description="time of the first window in the current series of changed windows"
    )
    last: ComparedWindow | None = None


class DriftDocument(_Frozen):
    """The content of a worker's file."""

    schema_version: Literal[1] = 1
    window: Literal[200] = WINDOW
    models: dict[str, DriftState]


class StateFile:
    """The locked file of a worker in the shared folder.

    Args:
        folder: is created if missing.

    Raises:
        OSError: the folder cannot be created or written to.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock, self._file = _first_free(folder)

    def read(self) -> dict[str, DriftState]:
        """The stored state by model. Empty if the file is missing or damaged."""
        return _read(self._file)

    def others(self) -> Iterator[dict[str, DriftState]]:
        """The last written states of the other workers, by model."""
        for file in sorted(self._folder.glob(_FILE.format("*"))):
            if file != self._file:
                yield _read(file)

    def write(self, models: dict[str, DriftState]) -> None:
        """Replaces the file atomically.

        Raises:
            OSError: the file cannot be written. The previous content is intact.
        """
        self._keep_lock()
        replace_file(self._file, DriftDocument(models=models).model_dump_json().encode())

    def _keep_lock(self) -> None:
        """Takes a file again if the folder was removed; another worker may have taken this one's since."""
        try:
            held = os.path.samestat(os.fstat(self._lock.fileno()), _lock_of(self._file).stat())
        except FileNotFoundError:
            held = False
        if not held:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.close()
            self._lock, self._file = _first_free(self._folder)

    def release(self) -> None:
        """Unlocks the file, so that another worker can take it."""
        self._lock.close()


def _lock_of(file: Path) -> Path:
    return file.with_suffix(".lock")


def _first_free(folder: Path) -> tuple[IO[bytes], Path]:
    """The locked lock of the first free file, and the file."""
    for number in count():
        file = folder / _FILE.format(number)
        lock = _lock_of(file).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        except OSError:
            lock.close()
            raise
        else:
            return lock, file
    raise AssertionError("unreachable")


def _read(file: Path) -> dict[str, DriftState]:
    try:
        return DriftDocument.model_validate_json(file.read_bytes()).models
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the file is damaged or has another format"
        _log.warning("drift state ignored", file=os.fspath(file), reason=reason)
        return {}
