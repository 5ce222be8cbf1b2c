"""Files, folders and globs → picture files, one at a time and each once."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class NothingFound(Exception):
    """A path leads to no picture; the text says which."""


def find_pictures(paths: Sequence[str], *, leave_out: Path | None = None) -> Iterator[str]:
    """The picture files that paths lead to.

    Args:
        paths: files, whatever they are called; folders, searched below for image suffixes, hidden names passed over;
            glob patterns, ``**`` included, for either.
        leave_out: a folder that is not searched.

    Yields:
        Their paths: the arguments in their order, what lies below each sorted by name.

    Raises:
        NothingFound: one of the paths leads to no picture.
        OSError: a folder cannot be read.
    """
    seen: set[str] = set()
    hidden = identity(leave_out) if leave_out else None
    for path in paths:
        found = False
        for picture in _expand(path, hidden):
            found = True
            if (this := identity(picture)) not in seen:
                seen.add(this)
                yield picture
        if not found:
            raise NothingFound(_complaint(path))


def identity(path: str | Path) -> str:
    """What two ways to write the same path have in common."""
    return os.path.abspath(path)


def _expand(path: str, hidden: str | None) -> Iterator[str]:
    if os.path.isfile(path):
        yield os.fspath(Path(path))  # without ./ and //
    elif os.path.isdir(path):
        yield from _below(Path(path), hidden)
    elif glob.has_magic(path):
        for match in sorted(glob.glob(path, recursive=True)):
            if os.path.isfile(match):
                yield os.fspath(Path(match))
            elif os.path.isdir(match):
                yield from _below(Path(match), hidden)


def _below(folder: Path, hidden: str | None) -> Iterator[str]:
    if identity(folder) == hidden:
        return
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):  # a link may lead back up
            yield from _below(folder / entry.name, hidden)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
            yield os.fspath(folder / entry.name)


def _complaint(path: str) -> str:
    if os.path.isdir(path):
        return f"{path} holds no pictures ({', '.join(IMAGE_SUFFIXES)})"
    if os.path.exists(path):
        return f"{path} is neither a file nor a folder"
    return f"nothing matches {path}" if glob.has_magic(path) else f"there is no {path}"
