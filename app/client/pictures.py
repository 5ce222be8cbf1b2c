"""Any form of picture → a file to upload."""

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable


@runtime_checkable
class Readable(Protocol):
    """A binary file, or what reads like one."""

    def read(self) -> bytes:
        """The rest of it."""


@runtime_checkable
class PillowImage(Protocol):
    """A ``PIL.Image.Image``, known by its looks so that Pillow need not be installed."""

    @property
    def mode(self) -> str:
        """Pillow's name of the pixel format."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002  Pillow's name
        """Writes an image file."""


Picture: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | Readable | PillowImage
"""An image file's bytes, its path (``str`` too), a binary file, or a Pillow image."""

_PNG_MODES: Final = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


@dataclass(frozen=True)
class Upload:
    """One image file, and its name if it has one."""

    filename: str | None
    data: bytes


def read_pictures(pictures: Picture | Iterable[Picture]) -> tuple[Upload, ...]:
    """One picture or many, as files.

    Raises:
        ValueError: there is none.
        TypeError: one of them is no picture.
        OSError: a file cannot be read.
    """
    if isinstance(pictures, (bytes, bytearray, memoryview, str, os.PathLike, Readable, PillowImage)):
        return (_read(pictures),)
    uploads = tuple(map(_read, pictures))
    if not uploads:
        raise ValueError("there is no picture to score")
    return uploads


def _read(picture: Picture) -> Upload:
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return Upload(None, bytes(picture))
    if isinstance(picture, (str, os.PathLike)):
        return Upload(_name(picture), Path(picture).read_bytes())
    if isinstance(picture, Readable):
        return Upload(_name(getattr(picture, "name", None)), picture.read())
    if isinstance(picture, PillowImage):
        return Upload(None, _encode(picture))
    raise TypeError(f"{type(picture).__name__} is no picture: give bytes, a path, a binary file or a Pillow image")


def _name(path: object) -> str | None:
    """The last part of a path, without what cannot travel; temporary files have a number for a name."""
    if not isinstance(path, (str, os.PathLike)):
        return None
    return Path(path).name.encode(errors="replace").decode()


def _encode(image: PillowImage) -> bytes:
    """Losslessly: as PNG, or as TIFF where PNG lacks the mode."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if image.mode in _PNG_MODES else "TIFF")
    return buffer.getvalue()
