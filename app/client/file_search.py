"""Finds image files from files, folders and glob patterns; yields each file once."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

IMAGE_SUFFIXES: Final = (
    ".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".jpf", ".jpx",
)  # fmt: skip


class NothingFound(Exception):
    """No image was found under a path; the message names the path."""


def find_images(paths: Sequence[Path], *, exclude: Path | None = None) -> Iterator[Path]:
    """Finds the image files under the given paths.

    Args:
        paths: files with any suffix; folders, searched recursively for image suffixes, hidden names skipped; glob
            patterns for either, ``**`` included.
        exclude: a folder that is not searched.

    Yields:
        Paths of image files: in the order of the arguments, and sorted by name within each folder.

    Raises:
        NothingFound: no image was found under one of the paths.
        OSError: a folder cannot be read.
    """
    seen: set[str] = set()
    excluded = path_key(exclude) if exclude else None
    for path in paths:
        found = False
        for image in _expand(path, excluded):
            found = True
            if (key := path_key(image)) not in seen:
                seen.add(key)
                yield image
        if not found:
            raise NothingFound(_not_found_message(path))


def path_key(path: Path) -> str:
    """The absolute, normalized path: equal for all spellings of the same path. Symbolic links are not resolved."""
    return os.path.abspath(path)  # noqa: PTH100  resolve() follows links


def _expand(path: Path, excluded: str | None) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from _walk(path, excluded)
    elif glob.has_magic(str(path)):
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207  Path.glob rejects absolute patterns
            if Path(match).exists():
                yield from _expand(Path(match), excluded)


def _walk(folder: Path, excluded: str | None) -> Iterator[Path]:
    if path_key(folder) == excluded:
        return
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):  # a link to a parent folder would recurse forever
            yield from _walk(folder / entry.name, excluded)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
            yield folder / entry.name


def _not_found_message(path: Path) -> str:
    if path.is_dir():
        return f"{path} contains no images ({', '.join(IMAGE_SUFFIXES)})"
    if path.exists():
        return f"{path} is neither a file nor a folder"
    return f"nothing matches {path}" if glob.has_magic(str(path)) else f"{path} does not exist"
