"""What is known of drift, per model, and the file in which a worker keeps it.

Each worker has a file of its own in the folder, ``worker-0.json`` and so on, and holds a lock while it runs. One that
starts takes the first that nobody holds, and goes on where the one before it, or the one that died, left off.
"""

import fcntl
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Final, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.inference.decisions.drift_test import WINDOW

_FILE: Final = "worker-{}.json"

_log = structlog.get_logger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Judged(_Part):
    """What a window came to."""

    at: datetime
    changed: bool
    statistic: float
    higher: bool = Field(description="the scores have risen, where they differ most")
    mean_p_value: float


class State(_Part):
    """What a worker has seen of one version of a model. Its size has a bound."""

    version: str
    calibration_size: int = Field(ge=1)
    ranks: tuple[int, ...] = Field((), max_length=WINDOW - 1, description="of the images since the last window")
    windows: int = Field(0, ge=0)
    alarms: int = Field(0, ge=0)
    since: datetime | None = Field(None, description="first of the alarms without a quiet window between")
    last: Judged | None = None


class Kept(_Part):
    """A worker's file."""

    schema_version: Literal[1] = 1
    window: Literal[200] = WINDOW
    models: dict[str, State]


class Slot:
    """A worker's file among those of the others.

    Args:
        folder: made if need be.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        number, self._lock = _first_free(folder)
        self._file = folder / _FILE.format(number)

    def read(self) -> dict[str, State]:
        """What was kept; nothing if there is no file or it is damaged."""
        return _read(self._file)

    def others(self) -> Iterator[dict[str, State]]:
        """What the other workers have told of, a moment ago."""
        for file in sorted(self._folder.glob(_FILE.format("*"))):
            if file != self._file:
                yield _read(file)

    def write(self, models: dict[str, State]) -> None:
        """Replaces the file atomically.

        Raises:
            OSError: it cannot be written; what was there still is.
        """
        part = self._file.with_suffix(".part")
        part.write_text(Kept(models=models).model_dump_json(), encoding="utf-8")
        part.replace(self._file)

    def release(self) -> None:
        """Leaves the file to whoever comes next."""
        self._lock.close()


def _first_free(folder: Path) -> tuple[int, IO[bytes]]:
    number = 0
    while True:
        lock = (folder / f"worker-{number}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            number += 1
        except OSError:
            lock.close()
            raise
        else:
            return number, lock


def _read(file: Path) -> dict[str, State]:
    try:
        return Kept.model_validate_json(file.read_bytes()).models
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged, or of another version"
        _log.warning("drift state ignored", file=os.fspath(file), reason=reason)
        return {}
