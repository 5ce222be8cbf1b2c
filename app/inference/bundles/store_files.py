"""Reading files of the model store. Everything that reads the store opens its files here.

Whoever can write to the store decides what its names refer to: a link to a secret elsewhere, a named pipe that nobody
writes to, a sparse file of a terabyte. So a file is opened only if it is a regular one, without following links and
without waiting, and its size is checked before it is read. Its content is never part of a message.

The store's own folder may be a symbolic link, as mounted volumes often are. Below it, nothing may be one.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from app.inference.errors import BundleRejected

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def open_store_file(root: Path, folders: Sequence[str], name: str) -> Iterator[BinaryIO]:
    """Opens a regular file of the store, unbuffered. Does not wait for the other end of a pipe.

    Args:
        root: the store; it may be a symbolic link.
        folders: names of the folders below it that lead to the file; none may be a symbolic link.
        name: of the file in the last folder, also in messages; may contain folders, separated by ``/``.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
        BundleRejected: it is not a regular file, is or lies behind a symbolic link, or cannot be opened.
    """
    *parents, last = [*folders, *name.split("/")]
    folder = os.open(root, _FOLDER_FLAGS)
    try:
        for parent in parents:
            inner = _open(parent, _FOLDER_FLAGS | os.O_NOFOLLOW, folder, name)
            os.close(folder)
            folder = inner
        descriptor = _open(last, _FILE_FLAGS, folder, name)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleRejected(f"{name} cannot be read: it is not a regular file")
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  a descriptor, not a path
        yield file


def read_store_file(root: Path, folders: Sequence[str], name: str, *, limit: int) -> bytes:
    """The content of a file of the store.

    Args:
        root: as in :func:`open_store_file`, like ``folders`` and ``name``.
        folders: names of the folders that lead to the file.
        name: of the file.
        limit: the most bytes that are read.

    Raises:
        FileNotFoundError, NotADirectoryError, BundleRejected: as :func:`open_store_file`; or it is larger than the
            limit, or cannot be read.
    """
    with open_store_file(root, folders, name) as file:
        try:
            size = size_of(file)
            content = b"" if size > limit else file.read(size)
        except OSError as error:
            raise BundleRejected(f"{name} cannot be read: {error.strerror}") from error
    if size > limit:
        raise BundleRejected(f"{name} is larger than {limit:,} bytes")
    return content


def size_of(file: BinaryIO) -> int:
    """The size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def is_folder(path: Path) -> bool:
    """Whether a path is a folder and not a link to one.

    Raises:
        OSError: it cannot be examined; not if it does not exist.
    """
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _open(entry: str, flags: int, folder: int, name: str) -> int:
    try:
        return os.open(entry, flags, dir_fd=folder)
    except OSError as error:
        # The system reports a link as one of several errors, one of which also means that there is no such file.
        if _is_link(entry, folder):
            raise BundleRejected(f"{name} cannot be read: it is or lies behind a symbolic link") from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise
        raise BundleRejected(f"{name} cannot be read: {error.strerror}") from error


def _is_link(entry: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode)
    except (OSError, ValueError):
        return False
