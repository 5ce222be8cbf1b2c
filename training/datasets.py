"""Where pictures come from: MNIST and its kin, scikit-learn's digits, or a folder of the user's own.

Every source ends as one float32 tensor in [0, 1] in memory. Image files go through the decode path of the
service, and the built-in sets hold 8-bit values / 255: a picture gets the same tensor in training and serving.
"""

import gzip
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.error import URLError

import numpy as np
import torch

from app.inference.errors import InferenceError
from app.inference.images import Decoded, InputSpec, open_picture
from training.errors import TrainingError

NORMAL: Final = "normal"
BUILT_IN: Final = ("mnist", "fashion-mnist", "digits")

_IMAGE_SUFFIXES: Final = {".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_MAX_PIXELS: Final = 200_000_000  # the user's own files: only a slip or a bomb is larger
_PIXELS_TO_GUESS_COLOUR: Final = 32
_DIGITS_TEST_SHARE: Final = 0.2
_CLASSES: Final = 10


@dataclass(frozen=True)
class Dataset:
    """Pictures to learn what is normal from, and labelled ones to evaluate on.

    Attributes:
        source: name of the set or folder, no path.
        normal_label: which pictures count as normal, for people.
        spec: size and mode that all pictures were brought to.
        normal: (N, C, H, W) float32 in [0, 1].
        groups: N names; pictures of one group are pictures of one thing.
        test: (M, C, H, W) likewise; may be empty.
        test_kinds: M names, ``normal`` or the kind of anomaly.
        unreadable: files that were skipped, with the reason.
    """

    source: str
    normal_label: str
    spec: InputSpec
    normal: torch.Tensor
    groups: tuple[str, ...]
    test: torch.Tensor
    test_kinds: tuple[str, ...]
    unreadable: tuple[tuple[Path, str], ...] = field(default=())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the normal pictures as the model sees them."""
        return hashlib.sha256(np.ascontiguousarray(self.normal.numpy()).tobytes()).hexdigest()


def load(
    source: str,
    *,
    normal: Sequence[int],
    data_dir: Path,
    size: tuple[int, int] | None,
    mode: Literal["auto", "L", "RGB"],
) -> Dataset:
    """Reads a built-in set by name, or an image folder by path.

    Args:
        source: one of ``BUILT_IN``, or a folder with ``normal/`` and optionally ``test/``.
        normal: class labels that are normal, for the built-in sets.
        data_dir: where torchvision's sets lie or are downloaded to.
        size: (height, width) for folders; None for 64 × 64.
        mode: colour mode for folders.

    Raises:
        TrainingError: there is nothing to learn from; the text says what to do.
    """
    if source in {"mnist", "fashion-mnist"}:
        return _torchvision(source, normal, data_dir)
    if source == "digits":
        return _digits(normal)
    return _folder(Path(source), size or (64, 64), mode)


def _torchvision(source: str, normal: Sequence[int], data_dir: Path) -> Dataset:
    from torchvision.datasets import MNIST, FashionMNIST  # noqa: PLC0415  two seconds that only this set costs

    kind = {"mnist": MNIST, "fashion-mnist": FashionMNIST}[source]
    try:
        train, test = (kind(str(data_dir), train=part, download=True) for part in (True, False))
    except (RuntimeError, URLError, OSError, ValueError, EOFError, gzip.BadGzipFile) as error:
        raise TrainingError(
            f"{source} is not in {data_dir / kind.__name__ / 'raw'} and cannot be downloaded ({_one_line(error)}). "
            f"Place its four files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
            f"t10k-labels-idx1-ubyte) there by hand, or point --data-dir at a folder that has "
            f"{kind.__name__}/raw; --data digits needs no download"
        ) from error
    return _by_class(
        source,
        normal,
        (train.data.numpy(), train.targets.numpy()),
        (test.data.numpy(), test.targets.numpy()),
    )


def _digits(normal: Sequence[int]) -> Dataset:
    from sklearn.datasets import load_digits  # noqa: PLC0415  as above

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 8-bit, as any PNG of them is
    in_test = np.random.default_rng(0).random(len(images)) < _DIGITS_TEST_SHARE
    return _by_class(
        "digits", normal, (images[~in_test], bunch.target[~in_test]), (images[in_test], bunch.target[in_test])
    )


_Labelled = tuple[np.ndarray, np.ndarray]


def _by_class(source: str, normal: Sequence[int], train: _Labelled, test: _Labelled) -> Dataset:
    if not normal or not set(normal) <= set(range(_CLASSES)):
        raise TrainingError(f"--normal takes labels from 0 to 9 for {source}, for example --normal 5")
    images, labels = train
    wanted = images[np.isin(labels, list(normal))]
    test_images, test_labels = test
    return Dataset(
        source=source,
        normal_label=",".join(map(str, sorted(set(normal)))),
        spec=InputSpec(mode="L", height=images.shape[1], width=images.shape[2]),
        normal=_to_tensor(wanted),
        groups=tuple(map(str, range(len(wanted)))),
        test=_to_tensor(test_images),
        test_kinds=tuple(NORMAL if label in normal else str(label) for label in test_labels),
    )


def _to_tensor(images: np.ndarray) -> torch.Tensor:
    """(N, H, W) uint8 → (N, 1, H, W) float32 in [0, 1], by the division that decoding does."""
    return torch.from_numpy(images[:, None].astype(np.float32) / np.float32(255))


def _folder(root: Path, size: tuple[int, int], mode: Literal["auto", "L", "RGB"]) -> Dataset:
    normal_folder = root / NORMAL
    if not root.is_dir():
        raise TrainingError(f"there is no folder {root}, and no built-in set of that name ({', '.join(BUILT_IN)})")
    if not normal_folder.is_dir():
        raise TrainingError(f"{root} has no folder {NORMAL}/ with the pictures to learn from")
    normal_files = _image_files(normal_folder)
    if not normal_files:
        raise TrainingError(f"{normal_folder} holds no images ({', '.join(sorted(_IMAGE_SUFFIXES))})")
    test_files = [(path, NORMAL) for path in _image_files(root / "test" / NORMAL)]
    test_files += [(path, kind.name) for kind in _subfolders(root / "test" / "anomaly") for path in _image_files(kind)]
    spec = InputSpec(mode=_guess_mode(normal_files) if mode == "auto" else mode, height=size[0], width=size[1])
    reader = _Reader(spec)
    normal, kept = reader.read(normal_files)
    test, test_kept = reader.read([path for path, _ in test_files])
    if not len(normal):
        raise TrainingError(f"none of the {len(normal_files)} images in {normal_folder} can be read")
    return Dataset(
        source=root.resolve().name,
        normal_label=NORMAL,
        spec=spec,
        normal=normal,
        groups=tuple(_group(normal_files[index], normal_folder) for index in kept),
        test=test,
        test_kinds=tuple(test_files[index][1] for index in test_kept),
        unreadable=tuple(reader.unreadable),
    )


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES and path.is_file())


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _group(path: Path, normal_folder: Path) -> str:
    """A sub-folder is a group; a picture directly in normal/ stands alone."""
    relative = path.relative_to(normal_folder)
    return str(relative if relative.parent == Path() else relative.parent)


def _guess_mode(files: Sequence[Path]) -> Literal["L", "RGB"]:
    """RGB if any of a sample of pictures has noticeable colour."""
    spec = InputSpec(mode="RGB", height=_PIXELS_TO_GUESS_COLOUR, width=_PIXELS_TO_GUESS_COLOUR)
    sample, _ = _Reader(spec).read(files[:: max(1, len(files) // 50)])
    spread = sample.amax(dim=1) - sample.amin(dim=1)
    return "RGB" if len(sample) and bool((spread > 8 / 255).any()) else "L"


class _Reader:
    """Decodes files in parallel; remembers those that cannot be read."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.unreadable: list[tuple[Path, str]] = []

    def read(self, files: Sequence[Path]) -> tuple[torch.Tensor, list[int]]:
        """(K, C, H, W) and the positions in ``files`` of the K pictures that could be read."""
        decode: Callable[[Path], Decoded | str] = self._decode
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(decode, files))
        tensors, kept = [], []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, str):
                self.unreadable.append((files[index], outcome))
            else:
                tensors.append(outcome.tensor)
                kept.append(index)
        return torch.stack(tensors) if tensors else torch.empty(0, *self.spec.shape), kept

    def _decode(self, path: Path) -> Decoded | str:
        try:
            return open_picture(path.read_bytes(), max_pixels=_MAX_PIXELS).decode(self.spec)
        except (InferenceError, OSError) as error:
            return _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
