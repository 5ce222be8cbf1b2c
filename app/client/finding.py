"""Files, folders and globs → picture files, one at a time and each once."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class NothingFound(Exception):
    """A path leads to no picture; the text says which."""


def find_pictures(paths: Sequence[Path], *, leave_out: Path | None = None) -> Iterator[Path]:
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
    left_out = identity(leave_out) if leave_out else None
    for path in paths:
        found = False
        for picture in _expand(path, left_out):
            found = True
            if (this := identity(picture)) not in seen:
                seen.add(this)
                yield picture
        if not found:
            raise NothingFound(_complaint(path))


def identity(path: Path) -> str:
    """What all ways to write the same path have in common; links are left as they are."""
    return os.path.abspath(path)  # noqa: PTH100  resolve() follows links


def _expand(path: Path, left_out: str | None) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from _below(path, left_out)
    elif glob.has_magic(str(path)):
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207  Path.glob takes no absolute pattern
            if Path(match).exists():
                yield from _expand(Path(match), left_out)


def _below(folder: Path, left_out: str | None) -> Iterator[Path]:
    if identity(folder) == left_out:
        return
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):  # a link may lead back up
            yield from _below(folder / entry.name, left_out)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
            yield folder / entry.name


def _complaint(path: Path) -> str:
    if path.is_dir():
        return f"{path} holds no pictures ({', '.join(IMAGE_SUFFIXES)})"
    if path.exists():
        return f"{path} is neither a file nor a folder"
    return f"nothing matches {path}" if glob.has_magic(str(path)) else f"there is no {path}"
