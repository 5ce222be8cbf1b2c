"""Writes that are whole or absent, also if the disk is full or the process is killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_NEWLINE = b"\n"


def append_lines(descriptor: int, lines: bytes) -> None:
    """Appends complete lines to a file. No other process may write to it at the same time.

    If they cannot be written completely, what was written is removed. If a process died before it could remove its own,
    the cut line is ended first, so that it damages no other.

    Args:
        descriptor: of a file that is open for reading and appending.
        lines: end with a newline.

    Raises:
        OSError: they were not written.
    """
    size = os.fstat(descriptor).st_size
    if size and _last_byte(descriptor, size) != _NEWLINE:
        lines = _NEWLINE + lines
    rest = memoryview(lines)
    try:
        while rest:  # a disk that fills up first writes a part, and only then fails
            rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        with suppress(OSError):  # the next call ends the cut line
            os.ftruncate(descriptor, size)
        raise


def _last_byte(descriptor: int, size: int) -> bytes:
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1)


def replace_file(path: Path, content: bytes) -> None:
    """Replaces a file as :func:`replaced_file` does."""
    with replaced_file(path) as file:
        file.write(content)


@contextmanager
def replaced_file(path: Path, incoming: Path | None = None) -> Iterator[BinaryIO]:
    """Replaces a file atomically, after its new content has reached the disk.

    Args:
        path: of the file.
        incoming: in the same folder, where the content is written first; None: one place for all, so that only one
            process at a time may replace the file.

    Yields:
        The file to write the new content to.

    Raises:
        OSError: it cannot be written; the previous content is intact.
    """
    incoming = incoming or path.with_name(f"{path.name}.part")
    try:
        with incoming.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        incoming.replace(path)
    except BaseException:
        with suppress(OSError):
            incoming.unlink()  # it would take room on a full disk
        raise
