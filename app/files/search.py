"""Finds image files below folders: the one search of training, recalibration, the client and the Ray job.

Hidden entries and those of operating systems, file managers and network disks are passed over. They can look like
images: ``._part.png`` is a resource fork, ``@eaDir`` holds thumbnails, ``.ipynb_checkpoints`` old copies. What was not
looked at is counted, so that no image is left out without a word.
"""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from app.files.formats import SUFFIXES

# In lower case; names that start with a dot are hidden anyway.
_SYSTEM_NAMES: Final = {
    "$recycle.bin",
    "system volume information",
    "desktop.ini",
    "thumbs.db",
    "ehthumbs.db",
    "__macosx",
    "icon\r",
    "lost+found",
    "@eadir",
    "#recycle",
    "#snapshot",
    "@recycle",
    "@recently-snapshot",
}
_MOST_SUFFIXES: Final = 10


class Entry(NamedTuple):
    """An entry of a folder.

    Attributes:
        name: within the folder.
        path: of the entry, beginning with that of the folder.
        kind: after following links.
    """

    name: str
    path: str
    kind: Literal["folder", "file", "broken link", "special file"]


class FileTree(Protocol):
    """Folders of a disk or a bucket."""

    def entries(self, folder: str) -> Iterable[Entry]:
        """The entries of a folder, in any order.

        Raises:
            OSError: the folder cannot be read.
        """

    def identity(self, folder: str) -> Hashable:
        """Equal for all paths of the same folder, whatever links they lead through."""


class LocalFiles:
    """The file system of this machine."""

    def entries(self, folder: str) -> Iterator[Entry]:
        """The entries of a folder, in any order."""
        with os.scandir(folder) as entries:
            for entry in entries:
                yield Entry(entry.name, entry.path, _kind(entry))

    def identity(self, folder: str) -> Hashable:
        """Device and inode."""
        return folder_identity(folder)


LOCAL_FILES: Final = LocalFiles()


@dataclass
class PassedOver:
    """Counts of what a search did not look at.

    Attributes:
        hidden: hidden and system entries; a folder counts as one.
        others: files without the suffix of an image, by suffix in lower case, and broken links.
    """

    hidden: int = 0
    others: Counter[str] = field(default_factory=Counter)
    _counted: set[Hashable] = field(default_factory=set)

    def lines(self) -> list[str]:
        """The counts as text, a line each, without those that are zero."""
        lines = []
        if self.others:
            frequent = self.others.most_common()[:_MOST_SUFFIXES]
            rest = self.others.total() - sum(count for _, count in frequent)
            parts = [f"{what} {count:,}" for what, count in [*frequent, *([("others", rest)] if rest else [])]]
            lines.append(f"{_counted(self.others.total(), 'file', 'files')} not looked at: {', '.join(parts)}")
        if self.hidden:
            lines.append(f"{_counted(self.hidden, 'hidden or system entry', 'hidden and system entries')} passed over")
        return lines

    def count(self, folder: Hashable, entries: Iterable[Entry]) -> None:
        """Adds what was passed over in a folder; a second time for the same folder has no effect."""
        if folder in self._counted:
            return
        self._counted.add(folder)
        for entry in entries:
            if is_hidden(entry.name):
                self.hidden += 1
            elif entry.kind != "folder" and not _is_image(entry):
                self.others[_suffix(entry.name) if entry.kind == "file" else entry.kind] += 1


def find_images(
    folder: str,
    passed_over: PassedOver,
    *,
    files: FileTree = LOCAL_FILES,
    visited: set[Hashable] | None = None,
    skip: Callable[[str], bool] = lambda _: False,
) -> Iterator[str]:
    """Finds all image files below a folder, by their suffix.

    Links to folders are followed, but no folder is searched twice, so links may form loops.

    Args:
        folder: where to start, whatever its name.
        passed_over: counts what is not looked at.
        files: where the folder is.
        visited: identities of folders that are not searched; those that are searched are added.
        skip: folders for which this is true are not searched.

    Yields:
        Paths that begin with that of the folder, sorted by the names of folders and files.

    Raises:
        OSError: a folder cannot be read.
    """
    visited = set() if visited is None else visited
    return (entry.path for entry in _walk(folder, passed_over, files, visited, skip) if _is_image(entry))


def find_folders(folder: str) -> Iterator[str]:
    """The folder itself and all folders below it, in the order and with the rules of :func:`find_images`."""
    entries = _walk(folder, PassedOver(), LOCAL_FILES, set(), lambda _: False)
    return (entry.path for entry in entries if entry.kind == "folder")


def _walk(
    folder: str, passed_over: PassedOver, files: FileTree, visited: set[Hashable], skip: Callable[[str], bool]
) -> Iterator[Entry]:
    """The folder, and all entries below it that are not hidden; each folder comes before its entries."""
    identity = files.identity(folder)
    if identity in visited or skip(folder):
        return
    visited.add(identity)
    entries = sorted(files.entries(folder))
    passed_over.count(identity, entries)
    yield Entry(os.path.basename(folder), folder, "folder")  # noqa: PTH119  called for each folder
    for entry in entries:
        if entry.kind == "folder" and not is_hidden(entry.name):
            yield from _walk(entry.path, passed_over, files, visited, skip)
        elif not is_hidden(entry.name):
            yield entry


def is_hidden(name: str) -> bool:
    """Whether a name is that of a hidden or system entry."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def folder_identity(folder: str | os.PathLike[str]) -> Hashable:
    """Device and inode of a folder on this machine.

    Raises:
        OSError: there is no such folder.
    """
    status = os.stat(folder)  # noqa: PTH116  called for each folder
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "broken link", "special file"]:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # a link to itself
        return "broken link"
    return "broken link" if entry.is_symlink() else "special file"


def _is_image(entry: Entry) -> bool:
    return entry.kind == "file" and entry.name.lower().endswith(SUFFIXES)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "no suffix"  # noqa: PTH122  called for each file


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
