"""Where images come from: MNIST and its kin, scikit-learn's digits, or a folder of the user's own.

Every source ends as one float32 tensor in [0, 1] in memory. Image files go through the decode path of the service,
and the built-in sets hold 8-bit values / 255: an image gets the same tensor in training and serving.
"""

import gzip
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.error import URLError

import numpy as np
import torch

from app.inference.images.model_input import InputSpec
from training.data import folders
from training.data.folders import NORMAL, Mode
from training.errors import TrainingError, did_you_mean

DOWNLOADED: Final = ("mnist", "fashion-mnist")
BUILT_IN: Final = (*DOWNLOADED, "digits")

_DIGITS_TEST_SHARE: Final = 0.2
_CLASSES: Final = 10


@dataclass(frozen=True)
class Source:
    """What to read.

    Attributes:
        data: one of ``BUILT_IN``, or a folder with ``normal/`` and optionally ``test/``.
        normal: class labels that are normal, for the built-in sets.
        data_dir: where torchvision's sets lie or are downloaded to, and decoded folders are cached.
        size: (height, width) for folders; None: the recipe's.
        mode: colour mode for folders.
        groups: what is one thing in a folder: ``folder``, ``none`` or a regular expression.
    """

    data: str
    normal: tuple[int, ...] = ()
    data_dir: Path = Path("data")
    size: tuple[int, int] | None = None
    mode: Mode = "auto"
    groups: str = "folder"


@dataclass(frozen=True)
class Dataset:
    """Images to learn what is normal from, and labelled ones to evaluate on.

    Attributes:
        source: name of the set or folder, no path.
        normal_label: which images count as normal, for people.
        spec: size and mode that all images were brought to.
        normal: (N, C, H, W) float32 in [0, 1].
        groups: N names; images of one group are images of one thing.
        test: (M, C, H, W) likewise; may be empty.
        test_kinds: M names, ``normal`` or the kind of anomaly.
        normal_files: N paths below the folder; empty for the built-in sets.
        test_files: M paths likewise.
        unreadable: files that were skipped, with the reason.
    """

    source: str
    normal_label: str
    spec: InputSpec
    normal: torch.Tensor
    groups: tuple[str, ...]
    test: torch.Tensor
    test_kinds: tuple[str, ...]
    normal_files: tuple[str, ...] = field(default=())
    test_files: tuple[str, ...] = field(default=())
    unreadable: tuple[tuple[Path, str], ...] = field(default=())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the normal images as the model sees them."""
        return hashlib.sha256(np.ascontiguousarray(self.normal.numpy()).tobytes()).hexdigest()


def load(source: Source, *, folder_size: tuple[int, int] = (64, 64)) -> Dataset:
    """Reads a built-in set by name, or an image folder by path.

    Args:
        source: what to read.
        folder_size: (height, width) for folders where the source names none.

    Raises:
        TrainingError: there is nothing to learn from; the text says what to do.
    """
    if source.data in DOWNLOADED:
        return _torchvision(source)
    if source.data == "digits":
        return _digits(source)
    return _folder(source, source.size or folder_size)


def _torchvision(source: Source) -> Dataset:
    from torchvision.datasets import MNIST, FashionMNIST  # noqa: PLC0415  two seconds that only these sets cost

    kind = {"mnist": MNIST, "fashion-mnist": FashionMNIST}[source.data]
    try:
        train, test = (kind(str(source.data_dir), train=part, download=True) for part in (True, False))
    except (RuntimeError, URLError, OSError, ValueError, EOFError, gzip.BadGzipFile) as error:
        raise TrainingError(
            f"{source.data} is not in {source.data_dir / kind.__name__ / 'raw'} and cannot be downloaded "
            f"({_reason(error)}). Place its four files (train-images-idx3-ubyte, "
            f"train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte) there by hand, or point "
            f"--data-dir at a folder that has {kind.__name__}/raw; --data digits needs no download"
        ) from error
    return _by_class(source, (train.data.numpy(), train.targets.numpy()), (test.data.numpy(), test.targets.numpy()))


def _reason(error: Exception) -> str:
    """What the last mirror said, without the wrappings."""
    text = " ".join(str(error).split()).rsplit("got: ", 1)[-1]
    return re.sub(r"^<urlopen error (\[Errno -?\d+\] )?(.*)>$", r"\2", text)


def _digits(source: Source) -> Dataset:
    from sklearn.datasets import load_digits  # noqa: PLC0415  as above

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 8-bit, as any PNG of them is
    in_test = np.random.default_rng(0).random(len(images)) < _DIGITS_TEST_SHARE
    return _by_class(source, (images[~in_test], bunch.target[~in_test]), (images[in_test], bunch.target[in_test]))


_Labelled = tuple[np.ndarray, np.ndarray]


def _by_class(source: Source, train: _Labelled, test: _Labelled) -> Dataset:
    normal = set(source.normal)
    if not normal or not normal <= set(range(_CLASSES)):
        raise TrainingError(f"--normal takes labels from 0 to 9 for {source.data}, for example --normal 5")
    images, labels = train
    wanted = images[np.isin(labels, list(normal))]
    test_images, test_labels = test
    return Dataset(
        source=source.data,
        normal_label=",".join(map(str, sorted(normal))),
        spec=InputSpec(mode="L", height=images.shape[1], width=images.shape[2]),
        normal=_to_tensor(wanted),
        groups=tuple(map(str, range(len(wanted)))),
        test=_to_tensor(test_images),
        test_kinds=tuple(NORMAL if label in normal else str(label) for label in test_labels),
    )


def _to_tensor(images: np.ndarray) -> torch.Tensor:
    """(N, H, W) uint8 → (N, 1, H, W) float32 in [0, 1], by the division that decoding does."""
    return torch.from_numpy(images[:, None].astype(np.float32) / np.float32(255))


def _folder(source: Source, size: tuple[int, int]) -> Dataset:
    root = Path(source.data)
    if root.is_file():
        raise TrainingError(
            f"{root} is a file; --data takes a folder that holds {NORMAL}/, or the name of a set: {', '.join(BUILT_IN)}"
        )
    if not root.is_dir():
        meant = did_you_mean(source.data, BUILT_IN) or f" ({', '.join(BUILT_IN)})"
        raise TrainingError(f"there is no folder {root}, and no built-in set of that name{meant}")
    normal_files, test_files = folders.normal_files(root), folders.test_files(root)
    spec = InputSpec(
        mode=folders.guess_mode(normal_files) if source.mode == "auto" else source.mode, height=size[0], width=size[1]
    )
    cache = source.data_dir / "decoded"
    normal = folders.decode(normal_files, spec, cache=cache)
    test = folders.decode([path for path, _ in test_files], spec, cache=cache)
    if not normal.kept:
        path, reason = normal.unreadable[0]
        raise TrainingError(
            f"none of the {len(normal_files)} images in {root / NORMAL} can be read; the first, {path.name}: {reason}"
        )
    return Dataset(
        source=root.resolve().name.encode(errors="replace").decode(),
        normal_label=NORMAL,
        spec=spec,
        normal=normal.images,
        groups=_groups([normal_files[index].relative_to(root / NORMAL) for index in normal.kept], source.groups),
        test=test.images,
        test_kinds=tuple(test_files[index][1] for index in test.kept),
        normal_files=tuple(_below(root, normal_files[index]) for index in normal.kept),
        test_files=tuple(_below(root, test_files[index][0]) for index in test.kept),
        unreadable=normal.unreadable + test.unreadable,
    )


def _groups(files: Sequence[Path], rule: str) -> tuple[str, ...]:
    return tuple(folders.group_of(path, rule) for path in files)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
