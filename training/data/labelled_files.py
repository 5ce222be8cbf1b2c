"""Image files with their labels, however they are laid out, and the files that the user leaves out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

from training.errors import TrainingError


class LabelledFile(NamedTuple):
    """An image file.

    Attributes:
        path: of the file.
        kind: ``normal`` or the kind of anomaly.
        place: the path relative to the folder of its kind; groups are made of it.
        mask: an image file of the same view in which the defect is white; None: there is none.
    """

    path: Path
    kind: str
    place: Path
    mask: Path | None = None


@dataclass(frozen=True)
class LabelledFiles:
    """The image files of a data set.

    Attributes:
        root: the folder that their names are relative to.
        normal: to train on.
        test: to evaluate on; may be empty.
        remarks: what was not read, as lines of text.
        excluded: number of files that the user left out.
    """

    root: Path
    normal: tuple[LabelledFile, ...]
    test: tuple[LabelledFile, ...]
    remarks: tuple[str, ...] = ()
    excluded: int = 0

    def with_added(self, files: Sequence[LabelledFile], *, held_out: Sequence[LabelledFile]) -> Self:
        """These and further files.

        Args:
            files: to train on.
            held_out: to evaluate on.
        """
        return replace(self, normal=(*self.normal, *files), test=(*self.test, *held_out))

    def name_of(self, file: LabelledFile) -> str:
        """The path of a file as users see it: relative to the root, with slashes."""
        return Path(os.path.relpath(file.path, self.root)).as_posix()

    def without(self, exclusions: Path) -> Self:
        """The files that a list does not name.

        Args:
            exclusions: a text file with one path per line, relative to the root; blank lines, and lines that begin with
                ``#``, are ignored.

        Raises:
            TrainingError: the list cannot be read, or names something else than one of the files; the text names it.
        """
        listed = {os.path.normpath(self.root / line): line for line in _lines(exclusions)}
        known = {os.path.normpath(file.path) for file in (*self.normal, *self.test)}
        for path, line in listed.items():
            if path not in known:
                what = "is not one of its images" if os.path.lexists(path) else "does not exist"
                raise TrainingError(f"{exclusions} lists {line}, which {what} in {self.root}")
        return replace(
            self,
            normal=_without(self.normal, listed),
            test=_without(self.test, listed),
            excluded=len(listed),
        )


def _lines(file: Path) -> list[str]:
    try:
        text = os.fsdecode(file.read_bytes())
    except OSError as error:
        raise TrainingError(f"{file} cannot be read: {error.strerror}") from error
    lines = (line.strip() for line in text.removeprefix("\ufeff").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _without(files: Sequence[LabelledFile], paths: dict[str, str]) -> tuple[LabelledFile, ...]:
    return tuple(file for file in files if os.path.normpath(file.path) not in paths)
