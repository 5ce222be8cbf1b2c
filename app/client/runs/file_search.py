"""Finds image files from files, folders and glob patterns; yields each file once."""

import glob
import os
from collections import deque
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from app.files import search
from app.files.formats import SUFFIXES
from app.files.search import LOCAL_FILES, PassedOver, is_hidden


class NothingFound(Exception):
    """No image was found under a path; the message names the path."""


def find_images(paths: Sequence[Path], passed_over: PassedOver, *, exclude: Path | None = None) -> Iterator[Path]:
    """Finds the image files under the given paths.

    Args:
        paths: files with any name; folders, searched as :func:`app.files.search.find_images` does; glob patterns for
            either, ``**`` included, whose wildcards match no hidden or system names.
        passed_over: counts what is not looked at in folders.
        exclude: a folder that is not searched.

    Yields:
        Paths of image files: in the order of the arguments, and sorted by name within each folder.

    Raises:
        NothingFound: no image was found under one of the paths.
        OSError: a folder cannot be read.
    """
    seen: set[str] = set()
    excluded = os.path.realpath(exclude) if exclude else None
    for path in paths:
        found = False
        for image in _expand(path, passed_over, excluded):
            found = True
            if (key := path_key(image)) not in seen:
                seen.add(key)
                yield image
        if not found:
            raise NothingFound(_not_found_message(path))


def path_key(path: Path) -> str:
    """The absolute, normalized path: equal for all spellings of the same path. Symbolic links are not resolved."""
    return os.path.abspath(path)  # noqa: PTH100  resolve() follows links


def _expand(path: Path, passed_over: PassedOver, excluded: str | None) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from _below(path, passed_over, excluded)
    elif glob.has_magic(str(path)):
        for match in _matches(Path(path.anchor), path.relative_to(path.anchor).parts):
            yield from _expand(match, passed_over, excluded)


def _below(folder: Path, passed_over: PassedOver, excluded: str | None) -> Iterator[Path]:
    found = search.find_images(
        str(folder), passed_over, skip=lambda each: excluded is not None and os.path.realpath(each) == excluded
    )
    return map(Path, found)


def _matches(folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """Files and folders that match a pattern, sorted by name in each folder.

    The glob of the standard library is not used, because it follows loops of links, and matches system names.
    """
    if not pattern:
        yield folder
        return
    part, *rest = pattern
    if not glob.has_magic(part):
        yield from _matches(folder / part, rest)
    elif not folder.is_dir():
        return
    elif part == "**":
        for each in search.find_folders(str(folder)) if rest else [str(folder)]:
            yield from _matches(Path(each), rest)
    else:
        for entry in sorted(LOCAL_FILES.entries(str(folder))):
            if fnmatch(entry.name, part) and (part.startswith(".") or not is_hidden(entry.name)):
                yield from _matches(folder / entry.name, rest)


def _not_found_message(path: Path) -> str:
    if path.is_dir():
        passed_over = PassedOver()
        deque(search.find_images(str(path), passed_over), maxlen=0)
        return "; ".join([f"{path} contains no images ({', '.join(SUFFIXES)})", *passed_over.lines()])
    if path.exists():
        return f"{path} is neither a file nor a folder"
    return f"nothing matches {path}" if glob.has_magic(str(path)) else f"{path} does not exist"
