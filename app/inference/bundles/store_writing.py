"""Writing to the model store: locked, flushed to disk, and without following what others may have put in the way."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.inference.bundles.store_files import is_folder

INCOMING_PREFIX: Final = ".publishing-"
"""Begins the names of folders and files that are not complete yet."""

_LOCK_FILE: Final = ".lock"


@contextmanager
def removing_on_failure(folder: Path) -> Iterator[None]:
    """Removes a folder if its publication fails, also because it would keep a full disk full."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def locked(model: Path) -> Iterator[None]:
    """Holds a model's lock. The kernel releases it if the process dies; the next writer removes what was left."""
    lock = open_lock(model)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_abandoned(model)
        yield
    finally:
        os.close(lock)


def open_lock(model: Path) -> int:
    """Opens the lock file; it does not follow links or wait for a pipe, which others may have put there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(model / _LOCK_FILE, flags, 0o666)


def _remove_abandoned(model: Path) -> None:
    """Removes what killed writers left. The caller must hold the lock."""
    for path in model.glob(f"{INCOMING_PREFIX}*"):
        shutil.rmtree(path) if is_folder(path) else path.unlink()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files to a new folder and flushes them and their folders to disk."""
    for name, content in files.items():
        _write_flushed(folder / name, content)
    for parent in {(folder / name).parent for name in files}:
        flush_folder(parent)


def _write_flushed(path: Path, content: bytes) -> None:
    """Writes a new file; an existing one or a link in its place is an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes, *, scratch: Path) -> None:
    """Replaces a file atomically. The new content is first written to a temporary file in ``scratch``."""
    incoming = scratch / f"{INCOMING_PREFIX}{path.name}"
    try:
        _write_flushed(incoming, content)
        incoming.replace(path)
    except BaseException:
        incoming.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Flushes the names in a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
