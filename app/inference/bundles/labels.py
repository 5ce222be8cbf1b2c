"""Labels: an operator's verdict on a scored image, stored with its score as JSON Lines.

The service writes them, recalibration reads them. Several processes can append to the file: a lock lets one at a time
write. A line that cannot be written completely is removed again. If that fails too, it is ended by a newline before the
next one, and readers skip it.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from app.files.writing import append_lines
from app.inference.bundles.manifest import NAME_PATTERN, VERSION_PATTERN
from app.inference.decisions.conformal import Verdict
from app.inference.errors import LabelNotKept

MAX_FILE_BYTES: Final = 2**30  # about a million labels; clients must not be able to fill the disk

_TAIL_BYTES: Final = 8 * 2**20  # about ten thousand labels
_LOCK_S: Final = 5.0  # a lock is held for the time of one write
_LOCK_STEP_S: Final = 0.01


class Answer(BaseModel):
    """The service's result for one image."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(pattern=NAME_PATTERN)
    version: str = Field(pattern=VERSION_PATTERN)
    mse: FiniteFloat
    score: FiniteFloat
    threshold: FiniteFloat = Field(description="of the request; the verdict was `anomaly` if the score was higher")
    picture: str = Field(pattern=r"^[0-9a-f]{32}$", description="BLAKE2b hash (128 bits) of the image file")
    request_id: str = Field(max_length=128)
    index: int = Field(ge=0, description="position of the image in the request, from 0")


class Label(Answer):
    """One line of the file: the service's result and the operator's verdict."""

    labelled_at: datetime
    verdict: Verdict = Field(description="the operator's")
    filename: str | None
    comment: str | None
    operator: str | None = None
    image: str | None = Field(None, description="name of the stored image file; None if it is not stored")


@dataclass(frozen=True)
class Labels:
    """The content of a label file.

    Attributes:
        labels: the last label of each image and version, ordered by the first one.
        unreadable: the number of lines that are not valid labels.
    """

    labels: tuple[Label, ...]
    unreadable: int


def require_writable(path: Path) -> None:
    """Checks that a label file can be written, without creating anything.

    Args:
        path: the file; it and its folders need not exist yet.

    Raises:
        LabelNotKept: the path is a folder, is below a file, or is not writable.
    """
    try:
        existing = path.resolve()
        while not existing.exists():
            existing = existing.parent
        is_file = existing == path.resolve()
        if is_file and existing.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not is_file and not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(existing, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LabelNotKept(f"the label file cannot be written: {reason}") from error


def append(path: Path, label: Label) -> None:
    """Appends one label, which has reached the disk when this returns.

    Raises:
        LabelNotKept: the file cannot be written, or has reached ``MAX_FILE_BYTES``.
    """
    line = label.model_dump_json().encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            _lock(descriptor)
            if os.fstat(descriptor).st_size + len(line) > MAX_FILE_BYTES:
                raise LabelNotKept(f"the label file has reached its limit of {MAX_FILE_BYTES:,} bytes; move it away")
            append_lines(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # this also unlocks it
    except OSError as error:
        raise LabelNotKept(f"the label file cannot be written: {error.strerror}") from error


def _lock(descriptor: int) -> None:
    """Waits until no other process writes; gives up after some seconds, because a stopped process keeps its lock."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise LabelNotKept("the label file cannot be written: another process has locked it") from error
            time.sleep(_LOCK_STEP_S)
        else:
            return


def read(path: Path) -> Labels:
    """Reads a label file; if an image has several labels by the same version, the last one counts.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return _last_labels(file)


def latest(path: Path, limit: int) -> list[Label]:
    """The last labels, the newest first; of an image only the last by each version.

    They are looked for in the last 8 MiB of the file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - _TAIL_BYTES, 0))
        lines = file.read(_TAIL_BYTES).split(b"\n")
    found: dict[tuple[str, str, str], Label] = {}
    for line in reversed(lines):
        with suppress(ValidationError):
            label = Label.model_validate_json(line)
            found.setdefault((label.model, label.version, label.picture), label)
        if len(found) == limit:
            break
    return list(found.values())


def _last_labels(lines: Iterable[bytes]) -> Labels:
    last: dict[tuple[str, str, str], Label] = {}
    unreadable = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            label = Label.model_validate_json(line)
        except ValidationError:
            unreadable += 1
            continue
        last[label.model, label.version, label.picture] = label
    return Labels(tuple(last.values()), unreadable)
