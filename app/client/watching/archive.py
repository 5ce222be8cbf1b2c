"""The archive: images by day and verdict. Every step can be repeated after a crash."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path, PurePosixPath

from app.client.watching.journal import Entry
from app.client.watching.sources.arrivals import Image, identify

_DIGITS = 12  # of a hash in a file name


class Archive:
    """Moves or copies images to ``root/YYYY-MM-DD/VERDICT/…``.

    Args:
        root: the folder; created with the first image.
        keep: copy, and leave the image where it is.
    """

    def __init__(self, root: Path, *, keep: bool) -> None:
        self.root = root
        self.keep = keep

    def place(self, file: str, day: str, verdict: str, sha256: str) -> str:
        """Where an image will be, relative to the archive: a name that no other image has."""
        wanted = PurePosixPath(day, verdict, file)
        names = [wanted.name, f"{wanted.stem}-{sha256[:_DIGITS]}{wanted.suffix}"]
        number = 1
        while os.path.lexists(self.root / (place := wanted.with_name(names[0]))):
            names = names[1:] or [f"{wanted.stem}-{sha256[:_DIGITS]}-{(number := number + 1)}{wanted.suffix}"]
        return str(place)

    def put(self, image: Image, entry: Entry) -> None:
        """Moves or copies an image to its place; has no effect if it is there.

        Raises:
            FileNotFoundError: the image is in neither place.
            OSError: it cannot be moved; it is still where it was.
        """
        assert entry.archived is not None  # noqa: S101  for the type checker
        target = self.root / entry.archived
        if target.exists():
            if not self.keep and identify(image.path) == image.identity:  # the crash was between copy and removal
                image.path.unlink()
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        _incoming(target).unlink(missing_ok=True)  # of a copy that was killed
        if self.keep:
            _copy(image.path, target)
        else:
            _move(image, target)


def _move(image: Image, target: Path) -> None:
    try:
        image.path.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(image.path, target)  # to another file system
        if identify(image.path) == image.identity:
            image.path.unlink()
        return
    if identify(target) != image.identity and not image.path.exists():
        target.rename(image.path)  # replaced in the last moment: another image, which is to be scored


def _copy(source: Path, target: Path) -> None:
    """Copies a file so that the target is whole or absent, whatever happens."""
    incoming = _incoming(target)
    try:
        shutil.copy2(source, incoming)
        _flush(incoming)
        incoming.rename(target)
        _flush(target.parent)
    except BaseException:
        with suppress(OSError):
            incoming.unlink()  # it would take room on a full disk
        raise


def _incoming(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
