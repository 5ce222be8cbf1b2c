"""Labels: what an operator says of a scored image, joined with its score, as JSON Lines on disk.

The service writes them and training reads them. Every line goes to the file in one append, so that several processes
may write to one file without a lock, and a line is whole or, on a full disk, cut short and passed over by readers.
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from app.inference.bundles.manifest import NAME_PATTERN, VERSION_PATTERN
from app.inference.decisions.conformal import Verdict
from app.inference.errors import LabelNotKept

MAX_FILE_BYTES: Final = 2**30  # a million labels or so; clients must not be able to fill a disk


class Answer(BaseModel):
    """What the service said of one image."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(pattern=NAME_PATTERN)
    version: str = Field(pattern=VERSION_PATTERN)
    mse: FiniteFloat
    score: FiniteFloat
    threshold: FiniteFloat = Field(description="of the request: its verdict was `anomaly` if the score was higher")
    picture: str = Field(pattern=r"^[0-9a-f]{32}$", description="of the file's bytes: the same image has the same")
    request_id: str = Field(max_length=128)
    index: int = Field(ge=0, description="place among the images of the request")


class Label(Answer):
    """One line: the answer, and what a person says of the image."""

    labelled_at: datetime
    verdict: Verdict = Field(description="the person's")
    filename: str | None
    comment: str | None


@dataclass(frozen=True)
class Labels:
    """What a file holds.

    Attributes:
        labels: one per image and version, the last that was given, in the order of the first ones.
        unreadable: lines that are none.
    """

    labels: tuple[Label, ...]
    unreadable: int


def require_writable(path: Path) -> None:
    """Checks that a file of labels can be written, without creating anything.

    Raises:
        LabelNotKept: it cannot.
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
        raise LabelNotKept(f"labels cannot be written there: {reason}") from error


def append(path: Path, label: Label) -> None:
    """Adds one line.

    Raises:
        LabelNotKept: the file system refuses, or the file is full.
    """
    line = label.model_dump_json().encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            if os.fstat(descriptor).st_size + len(line) > MAX_FILE_BYTES:
                raise LabelNotKept(f"the file of labels has reached {MAX_FILE_BYTES:,} bytes; move it elsewhere")
            if os.write(descriptor, line) < len(line):
                os.write(descriptor, b"\n")  # ends the broken line, so that the next one stands alone
                raise LabelNotKept("the file of labels could not be written to the end: the disk is full")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LabelNotKept(f"the file of labels cannot be written to: {error.strerror}") from error


def read(path: Path) -> Labels:
    """All labels of a file; of several for one image by one version the last counts.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _last(file)


def _last(lines: Iterable[bytes]) -> Labels:
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
