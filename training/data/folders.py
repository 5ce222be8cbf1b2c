"""Image files: their groups, their typical size and colour, and their decoding, in parallel and with a cache.

Images of one object form a group, which no split separates: a model that was fitted on five photographs of a tile
reconstructs the sixth well, so its score would make the threshold too low for new tiles.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high
from typing import Final, Literal

import numpy as np
from PIL import Image

from app.inference.images.model_input import SIDES, InputSpec, Levels, Pixels, unit_values
from training.data.decoding import decode_files
from training.data.images import Images
from training.data.remarks import Remark, counted
from training.errors import TrainingError

Mode = Literal["auto", "L", "RGB"]

NORMAL: Final = "normal"

_PIXELS_TO_GUESS_COLOUR: Final = 32
_SAMPLE: Final = 50
_NOTICEABLE_COLOUR: Final = 8 / 255
_DECODER: Final = 3  # increase it when decoding changes, to invalidate the cache


@dataclass(frozen=True)
class DecodedFiles:
    """The decoded images of a list of files.

    Attributes:
        images: K images, of the files that could be read.
        kept: K positions in the list.
        unreadable: the other files, with the reason.
        remarks: what decoding changed in the images.
    """

    images: Images
    kept: tuple[int, ...]
    unreadable: tuple[tuple[Path, str], ...]
    remarks: tuple[Remark, ...]


def group_of(path: Path, rule: str) -> str:
    """The name of the group that an image belongs to.

    Args:
        path: the file, relative to the folder of its kind.
        rule: ``folder``: a sub-folder is a group, and an image outside any sub-folder is its own group; ``none``: every
            image is its own group; else a regular expression, whose first group, or whole match, in the path is the
            name. An image whose path does not match is its own group.
    """
    text = path.as_posix()
    if rule == "folder":
        return text if path.parent == Path() else path.parent.as_posix()
    if rule == "none" or (match := re.search(rule, text)) is None:
        return text
    return str(match[1] if match.re.groups else match[0])


def guess_mode(files: Sequence[Path], levels: Levels | None) -> Literal["L", "RGB"]:
    """RGB if any image of a sample has visible colour, else L.

    Args:
        files: image files.
        levels: of images of more than 8 bits, as in :class:`InputSpec`.
    """
    black, white = levels or (None, None)
    side = _PIXELS_TO_GUESS_COLOUR
    spec = InputSpec(mode="RGB", height=side, width=side, black=black, white=white)
    sample = decode(files[:: max(1, len(files) // _SAMPLE)], spec, cache=None).images
    spreads = (float((image.amax(dim=0) - image.amin(dim=0)).max()) for image in sample)
    return "RGB" if any(spread > _NOTICEABLE_COLOUR for spread in spreads) else "L"


def typical_size(files: Sequence[Path]) -> tuple[int, int]:
    """(height, width): the medians of a sample, read from the headers, within what a model's input permits."""
    sizes = [(SIDES[0], SIDES[0])]
    for path in files[:: max(1, len(files) // _SAMPLE)]:
        with suppress(OSError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
            sizes.append((image.height, image.width))
    height, width = (min(max(median_high(sides), SIDES[0]), SIDES[1]) for sides in zip(*sizes, strict=True))
    return height, width


def decode(
    files: Sequence[Path], spec: InputSpec, *, cache: Path | None, on_image: Callable[[], None] = lambda: None
) -> DecodedFiles:
    """Decodes files with the code of the service, in parallel; a second call with the same files reads the cache.

    Args:
        files: image files.
        spec: what to convert them to.
        cache: folder for decoded images; None: no cache.
        on_image: called after each image that is decoded.
    """
    if cache is None:
        return _decode_all(files, spec, on_image)
    cached = cache / cache_key(files, spec.model_dump_json())
    with suppress(OSError):
        return _read_cache(cached, files)
    decoded = _decode_all(files, spec, on_image)
    with suppress(OSError):  # training works without the cache, for example on a read-only or full disk
        _write_cache(cached, decoded, files)
        return _read_cache(cached, files)  # the file holds the images, no longer the memory
    return decoded


def _decode_all(files: Sequence[Path], spec: InputSpec, on_image: Callable[[], None]) -> DecodedFiles:
    # Filled image by image: a list of all images and an array made from it would take twice the memory.
    pixels: Pixels = np.empty((len(files), *spec.shape), np.uint8)
    kept: list[int] = []
    unreadable: list[tuple[Path, str]] = []
    warnings: list[tuple[str, ...]] = []
    for index, outcome in enumerate(decode_files(files, spec)):
        on_image()
        if isinstance(outcome, str):
            unreadable.append((files[index], outcome))
            continue
        image = outcome.pixels
        if image.dtype == np.float32:  # one image of more than 8 bits makes all of them float32
            pixels = unit_values(pixels)
        pixels[len(kept)] = image if image.dtype == pixels.dtype else unit_values(image)
        warnings.append(outcome.warnings)
        kept.append(index)
    return DecodedFiles(Images(pixels[: len(kept)]), tuple(kept), tuple(unreadable), counted(warnings))


def decode_some(
    files: Sequence[Path],
    spec: InputSpec,
    root: Path,
    *,
    cache: Path | None,
    on_image: Callable[[], None] = lambda: None,
) -> DecodedFiles:
    """Decodes files, at least one of which must be readable.

    Args:
        files: image files, at least one.
        spec: what to convert them to.
        root: their folder, or the list of them, for the error message.
        cache: as for :func:`decode`.
        on_image: likewise.

    Raises:
        TrainingError: none of the files can be read; the text has the reason for the first one.
    """
    decoded = decode(files, spec, cache=cache, on_image=on_image)
    if not decoded.kept:
        path, reason = decoded.unreadable[0]
        raise TrainingError(f"none of the {len(files)} images of {root} can be read; the first, {path.name}: {reason}")
    return decoded


def name_of(folder: Path) -> str:
    """The name of a folder or file, without its path, as valid Unicode."""
    return folder.resolve().name.encode(errors="replace").decode()


def _read_cache(cached: Path, files: Sequence[Path]) -> DecodedFiles:
    """What was cached under this name, with the images mapped from their file.

    Raises:
        OSError: nothing was.
    """
    index = json.loads(cached.with_suffix(".json").read_text())
    pixels = np.load(cached.with_suffix(".npy"), mmap_mode="r")
    unreadable = tuple((files[at], reason) for at, reason in index["unreadable"])
    remarks = tuple(Remark(*each) for each in index["remarks"])
    return DecodedFiles(Images(pixels), tuple(index["kept"]), unreadable, remarks)


def _write_cache(cached: Path, decoded: DecodedFiles, files: Sequence[Path]) -> None:
    """Writes the pixels, then the index: a reader that finds the index finds both."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cached.with_suffix(".npy")) as temporary:
        np.save(temporary, decoded.images.pixels)
    unreadable = [(files.index(path), reason) for path, reason in decoded.unreadable]
    with replacing(cached.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({"kept": decoded.kept, "unreadable": unreadable, "remarks": decoded.remarks}))


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A file to write to, which replaces another one at the end; after an error there is neither."""
    temporary = file.with_stem(f"{file.stem}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def cache_key(files: Sequence[Path], purpose: str) -> str:
    """A hash of what is cached, and of path, size and modification time of each file."""
    digest = hashlib.sha256(f"{_DECODER} {purpose}".encode())
    for path in files:
        status = path.stat()
        digest.update(b"\n%b %d %d" % (os.fsencode(path.resolve()), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:32]
