"""Image folders: which files, which groups, decoded once in parallel and cached.

Images of one thing must stay together in every split: a model that has seen five photographs of a tile rebuilds
the sixth well, and a threshold from such images is too low for tiles to come.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from app.inference.errors import InferenceError
from app.inference.images.decoding import open_image
from app.inference.images.formats import SUFFIXES
from app.inference.images.model_input import InputSpec
from training.errors import TrainingError

Mode = Literal["auto", "L", "RGB"]

NORMAL: Final = "normal"

_MAX_PIXELS: Final = 200_000_000  # the user's own files: only a slip or a bomb is larger
_PIXELS_TO_GUESS_COLOUR: Final = 32
_SAMPLE_TO_GUESS_COLOUR: Final = 50
_NOTICEABLE_COLOUR: Final = 8 / 255
_DECODER: Final = 1  # raise when decoding changes, so that no stale cache is read


@dataclass(frozen=True)
class DecodedFiles:
    """The images of a list of files.

    Attributes:
        images: (K, C, H, W) float32 in [0, 1], those that could be read.
        kept: K positions in the list.
        unreadable: the other files, with the reason.
    """

    images: torch.Tensor
    kept: tuple[int, ...]
    unreadable: tuple[tuple[Path, str], ...]


def image_files(folder: Path) -> list[Path]:
    """All image files below a folder, by suffix, in a fixed order; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def normal_files(root: Path) -> list[Path]:
    """The images to learn from.

    Raises:
        TrainingError: there are none; the text says what is missing.
    """
    if not (root / NORMAL).is_dir():
        loose = sum(path.suffix.lower() in SUFFIXES for path in root.iterdir())
        found = f"; move the {loose:,} images that lie in {root} itself there" if loose else ""
        raise TrainingError(f"{root} has no folder {NORMAL}/ with the images to learn from{found}")
    files = image_files(root / NORMAL)
    if not files:
        raise TrainingError(f"{root / NORMAL} holds no images ({', '.join(sorted(SUFFIXES))})")
    return files


def test_files(root: Path) -> list[tuple[Path, str]]:
    """The images to evaluate on, each with ``normal`` or its kind of anomaly; there may be none."""
    anomalies = root / "test" / "anomaly"
    kinds = sorted(path for path in anomalies.iterdir() if path.is_dir()) if anomalies.is_dir() else []
    return [(path, NORMAL) for path in image_files(root / "test" / NORMAL)] + [
        (path, kind.name) for kind in kinds for path in image_files(kind)
    ]


def group_of(path: Path, rule: str) -> str:
    """The name of the thing that an image shows.

    Args:
        path: the file, relative to ``normal/``.
        rule: ``folder``: its sub-folder, an image outside any stands alone; ``none``: every image stands alone;
            else a regular expression whose first group (or whole match) in the path is the name.
    """
    text = path.as_posix()
    if rule == "folder":
        return text if path.parent == Path() else path.parent.as_posix()
    if rule == "none" or (match := re.search(rule, text)) is None:
        return text
    return str(match[1] if match.re.groups else match[0])


def guess_mode(files: Sequence[Path]) -> Literal["L", "RGB"]:
    """RGB if any of a sample of images has noticeable colour."""
    spec = InputSpec(mode="RGB", height=_PIXELS_TO_GUESS_COLOUR, width=_PIXELS_TO_GUESS_COLOUR)
    sample = decode(files[:: max(1, len(files) // _SAMPLE_TO_GUESS_COLOUR)], spec, cache=None).images
    spread = sample.amax(dim=1) - sample.amin(dim=1)
    return "RGB" if len(sample) and bool((spread > _NOTICEABLE_COLOUR).any()) else "L"


def decode(files: Sequence[Path], spec: InputSpec, *, cache: Path | None) -> DecodedFiles:
    """Decodes files by the service's code, in parallel; a second call with the same files reads the cache.

    Args:
        files: image files.
        spec: size and mode to bring them to.
        cache: folder for decoded images; None: do not keep them.
    """
    kept_file = cache and cache / f"{_cache_key(files, spec)}.npz"
    if kept_file and kept_file.is_file():
        with np.load(kept_file) as found:
            unreadable = zip(found["unreadable"].tolist(), found["reasons"].tolist(), strict=True)
            return DecodedFiles(
                torch.from_numpy(found["images"]),
                tuple(found["kept"].tolist()),
                tuple((files[index], reason) for index, reason in unreadable),
            )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(lambda path: _decode(path, spec), files))
    good = [(index, outcome) for index, outcome in enumerate(outcomes) if isinstance(outcome, torch.Tensor)]
    bad = [(index, outcome) for index, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    images = torch.stack([tensor for _, tensor in good]) if good else torch.empty(0, *spec.shape)
    if kept_file:
        with suppress(OSError):  # a cache is a convenience: a read-only or full disk stops no training
            _keep(kept_file, images, good, bad)
    return DecodedFiles(
        images, tuple(index for index, _ in good), tuple((files[index], reason) for index, reason in bad)
    )


def _keep(
    file: Path, images: torch.Tensor, good: Sequence[tuple[int, torch.Tensor]], bad: Sequence[tuple[int, str]]
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    half_written = file.with_suffix(f".{os.getpid()}.npz")
    try:
        np.savez(
            half_written,
            images=images.numpy(),
            kept=np.array([index for index, _ in good], dtype=np.int64),
            unreadable=np.array([index for index, _ in bad], dtype=np.int64),
            reasons=np.array([reason for _, reason in bad], dtype=np.str_),
        )
        half_written.replace(file)
    finally:
        half_written.unlink(missing_ok=True)


def _decode(path: Path, spec: InputSpec) -> torch.Tensor | str:
    try:
        return open_image(path.read_bytes(), max_pixels=_MAX_PIXELS).decode(spec).tensor
    except (InferenceError, OSError) as error:
        return " ".join(str(error).split())


def _cache_key(files: Sequence[Path], spec: InputSpec) -> str:
    """Of what the files are as far as the file system knows: path, size, time of change."""
    digest = hashlib.sha256(f"{_DECODER} {spec.model_dump_json()}".encode())
    for path in files:
        status = path.stat()
        digest.update(b"\n%b %d %d" % (os.fsencode(path.resolve()), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()[:32]
