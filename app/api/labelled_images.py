"""The image files that operators have labelled: a folder, in which a file is named for its content."""

import errno
import io
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from PIL import Image

from app.api.errors import UnknownAnswer
from app.files.formats import FORMATS
from app.files.writing import replaced_file
from app.inference.errors import LabelNotKept

MAX_FOLDER_BYTES: Final = 10 * 2**30
"""Clients must not be able to fill the disk."""

_NAME: Final = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{1,5}")
_SUFFIXES: Final = {each.name: each.suffixes[0] for each in FORMATS} | {"MPO": ".jpg"}
_MEDIA_TYPES: Final = {each.suffixes[0]: each.media_type for each in FORMATS}
_OTHER: Final = ".image"
_MODE: Final = 0o640


class LabelledImages:
    """A folder of labelled image files.

    Args:
        folder: created if missing.

    Raises:
        LabelNotKept: the folder cannot be created or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise LabelNotKept(f"the folder of labelled images cannot be written: {error.strerror}") from error

    def keep(self, picture: str, data: bytes) -> str:
        """Stores a file whole or not at all, and on the disk when this returns. Blocking.

        Args:
            picture: hash of the file, 32 hexadecimal digits.
            data: the file.

        Returns:
            its name in the folder: the hash with the suffix of its format.

        Raises:
            LabelNotKept: it cannot be written, or the folder has reached ``MAX_FOLDER_BYTES``.
        """
        path = self.folder / f"{picture}{_suffix_of(data)}"
        try:
            if path.exists():
                return path.name
            if self._size() + len(data) > MAX_FOLDER_BYTES:
                raise LabelNotKept(
                    f"the folder of labelled images has reached its limit of {MAX_FOLDER_BYTES:,} bytes; empty it"
                )
            self._write(path, data)
        except OSError as error:
            raise LabelNotKept(f"the image cannot be written: {error.strerror}") from error
        return path.name

    def read(self, name: str) -> tuple[bytes, str]:
        """A file and its media type. Blocking.

        Raises:
            UnknownAnswer: there is no such file.
        """
        if not _NAME.fullmatch(name):
            raise UnknownAnswer("no labelled image has this name")
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise UnknownAnswer("no labelled image has this name") from error
        return content, _MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")

    def _size(self) -> int:
        """Bytes in the folder; other workers write into it too."""
        total = 0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another worker has renamed it
                    total += entry.stat(follow_symlinks=False).st_size
        return total

    def _write(self, path: Path, data: bytes) -> None:
        # Several workers may store the same image at the same time.
        with replaced_file(path, path.with_name(f".{secrets.token_hex(8)}.part")) as file:
            os.fchmod(file.fileno(), _MODE)
            file.write(data)


def _suffix_of(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _SUFFIXES.get(image.format or "", _OTHER)
    except (OSError, ValueError, SyntaxError):
        return _OTHER
