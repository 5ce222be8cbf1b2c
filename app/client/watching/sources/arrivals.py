"""Which images of a folder are complete: unchanged for a while, and open for writing in no process."""

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from app.files.formats import SUFFIXES
from app.files.search import PassedOver, find_images, is_hidden

if sys.platform == "linux":
    import fcntl


_PATIENCE: Final = 10  # times the usual waiting, before a file that is no readable image counts as whole


class Identity(NamedTuple):
    """What tells one image under a name from the next under the same name."""

    size: int
    modified_ns: int


@dataclass(frozen=True)
class Image:
    """An image file as it was when it was found complete.

    Attributes:
        path: beginning with that of the watched folder.
        identity: changes if the file is written or replaced.
        settled: whether it had not changed for so long that nobody is still writing it, however slowly.
    """

    path: Path
    identity: Identity
    settled: bool


def identify(path: Path) -> Identity | None:
    """Size and time of modification; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Identity(status.st_size, status.st_mtime_ns)


class Arrivals:
    """The images of a folder that are still to be scored.

    Args:
        folder: is watched.
        archive: is not, if it lies within.
        settle_s: for how many seconds a file must not change to be complete.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, folder: Path, archive: Path | None, settle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder
        self._archive = None if archive is None else Path(os.path.realpath(archive))
        self._settle_s = settle_s
        self._clock = clock
        self._waiting: dict[Path, tuple[Identity, float]] = {}
        self._taken: dict[Path, Identity] = {}
        self._doubted: set[Path] = set()

    def __len__(self) -> int:
        """Number of images that are not complete or not taken yet."""
        return len(self._waiting)

    def scan(self) -> None:
        """Searches the whole folder.

        Raises:
            OSError: it cannot be read.
        """
        found = {Path(path) for path in find_images(str(self.folder), PassedOver(), skip=self._is_archive)}
        self._taken = {path: identity for path, identity in self._taken.items() if path in found}
        self.look(found | self._waiting.keys())

    def look(self, paths: Iterable[Path]) -> None:
        """Looks at files, whether they are images, and whether they are there."""
        for path in paths:
            identity = identify(path)
            if identity is None or self._taken.get(path) == identity or not self._is_image(path):
                self._waiting.pop(path, None)
                self._doubted.discard(path)
            elif path not in self._waiting or self._waiting[path][0] != identity:
                self._waiting[path] = identity, self._clock()

    def take(self, most: int) -> list[Image]:
        """Takes images that are complete, the one that waits longest first; each is returned once."""
        self.look([*self._waiting])
        now = self._clock()
        complete: list[Image] = []
        for path, (identity, since) in sorted(self._waiting.items(), key=lambda item: item[1][1]):
            if len(complete) == most or now - since < self._settle_s:
                break
            settled = now - since >= _PATIENCE * self._settle_s
            if (settled or path not in self._doubted) and not is_open_for_writing(path):
                complete.append(Image(path, identity, settled))
                self.taken(complete[-1])
        return complete

    def taken(self, image: Image) -> None:
        """Marks an image as done: it is taken again only after a change."""
        self._waiting.pop(image.path, None)
        self._taken[image.path] = image.identity

    def forget(self, image: Image) -> None:
        """Forgets an image that was moved away: the next under its name is another one, however alike."""
        self._taken.pop(image.path, None)

    def give_back(self, image: Image) -> None:
        """Returns an image that may be incomplete: it is taken again once it is settled."""
        self._taken.pop(image.path, None)
        self._doubted.add(image.path)
        self.look([image.path])

    def _is_image(self, path: Path) -> bool:
        folders = path.relative_to(self.folder).parts
        return (
            path.name.lower().endswith(SUFFIXES)
            and not any(map(is_hidden, folders))
            and path.is_file()
            and not any(map(self._is_archive, map(str, path.parents)))
        )

    def _is_archive(self, folder: str) -> bool:
        """Compares names first: the real path takes a call of the system for each part."""
        return (
            self._archive is not None
            and Path(folder).name == self._archive.name
            and os.path.realpath(folder) == str(self._archive)
        )


def is_open_for_writing(path: Path) -> bool:
    """Whether a process of this machine has a file open for writing; False where that cannot be known.

    Linux refuses a read lease on such a file. Only its owner may ask for a lease; SIGIO must be ignored, because the
    kernel sends it if the file is opened in this very moment.
    """
    if sys.platform != "linux":
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:  # others: not the owner, or a file system without leases
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False
