"""Converts every supported form of an image into a file to upload."""

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable


@runtime_checkable
class Readable(Protocol):
    """A binary file or file-like object."""

    def read(self) -> bytes:
        """Returns the remaining bytes."""


@runtime_checkable
class PillowImage(Protocol):
    """A ``PIL.Image.Image``, recognized by its attributes so that Pillow is not required."""

    @property
    def mode(self) -> str:
        """Pillow's name of the pixel format."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002  Pillow's name
        """Writes an image file."""


ImageInput: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | Readable | PillowImage
"""The bytes of an image file, its path (``str`` or path-like), an open binary file, or a Pillow image."""

Picture: TypeAlias = ImageInput
"""Former name of ``ImageInput``, kept for existing callers."""

_PNG_MODES: Final = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


@dataclass(frozen=True)
class Upload:
    """One image file; ``filename`` is ``None`` if it has no name."""

    filename: str | None
    data: bytes


def read_images(images: ImageInput | Iterable[ImageInput]) -> tuple[Upload, ...]:
    """Reads one image or many.

    Raises:
        ValueError: ``images`` is empty.
        TypeError: an item is not a supported form of image.
        OSError: a file cannot be read.
    """
    if isinstance(images, (bytes, bytearray, memoryview, str, os.PathLike, Readable, PillowImage)):
        return (_read(images),)
    uploads = tuple(map(_read, images))
    if not uploads:
        raise ValueError("no image to score")
    return uploads


def _read(image: ImageInput) -> Upload:
    if isinstance(image, (bytes, bytearray, memoryview)):
        return Upload(None, bytes(image))
    if isinstance(image, (str, os.PathLike)):
        return Upload(_file_name(image), Path(image).read_bytes())
    if isinstance(image, Readable):
        return Upload(_file_name(getattr(image, "name", None)), image.read())
    if isinstance(image, PillowImage):
        return Upload(None, _encode(image))
    raise TypeError(f"{type(image).__name__} is not an image: pass bytes, a path, a binary file or a Pillow image")


def _file_name(path: object) -> str | None:
    """The last part of a path, encodable as UTF-8; ``None`` for temporary files, whose name is a number."""
    if not isinstance(path, (str, os.PathLike)):
        return None
    return Path(path).name.encode(errors="replace").decode()


def _encode(image: PillowImage) -> bytes:
    """Encodes losslessly: as PNG, or as TIFF if PNG does not support the mode."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if image.mode in _PNG_MODES else "TIFF")
    return buffer.getvalue()
