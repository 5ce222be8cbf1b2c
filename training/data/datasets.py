"""Data sets: MNIST, Fashion-MNIST, scikit-learn's digits, or a folder of images.

Image files are decoded by the code of the service, and the built-in sets are 8-bit values / 255, so an image gives the
same tensor in training and in serving.
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

from app.inference.images.model_input import Fit, InputSpec
from training.data import folders
from training.data.blankness import refuse_blank
from training.data.folders import NORMAL, Mode
from training.data.images import Images
from training.data.levels import LevelsRule, levels_of
from training.errors import TrainingError, did_you_mean

DOWNLOADED: Final = ("mnist", "fashion-mnist")
BUILT_IN: Final = (*DOWNLOADED, "digits")

_DIGITS_TEST_SHARE: Final = 0.2
_CLASSES: Final = 10


@dataclass(frozen=True)
class Source:
    """Which images to read.

    Attributes:
        data: one of ``BUILT_IN``, or a folder with ``normal/`` and optionally ``test/``.
        normal: class labels that are normal, for the built-in sets.
        data_dir: folder of torchvision's sets, which are downloaded if missing, and cache of decoded folders.
        size: (height, width) of the model's input, for folders; None: the recipe's.
        mode: colour mode of the model's input, for folders.
        groups: how images of a folder form groups: ``folder``, ``none`` or a regular expression.
        fit: how images of a folder are brought to the size if they have other proportions.
        levels: which values become black and white in images of a folder of more than 8 bits.
        background: what transparent images of a folder are flattened onto.
    """

    data: str
    normal: tuple[int, ...] = ()
    data_dir: Path = Path("data")
    size: tuple[int, int] | None = None
    mode: Mode = "auto"
    groups: str = "folder"
    fit: Fit = "stretch"
    levels: LevelsRule = "auto"
    background: str = "black"


@dataclass(frozen=True)
class Dataset:
    """Normal images for training, and labelled images for evaluation.

    Attributes:
        source: name of the set or folder, without its path.
        normal_label: which images count as normal, as text.
        spec: size, mode and fit that all images were converted to.
        native_size: (height, width) of a typical image before.
        normal: N images.
        groups: N names; images with the same name show the same object.
        test: M images; may be empty.
        test_kinds: M names, ``normal`` or the kind of anomaly.
        normal_files: N paths, relative to the folder; empty for the built-in sets.
        test_files: M paths, relative to the folder; empty for the built-in sets.
        unreadable: files that were skipped, with the reason.
        remarks: what decoding changed in the images, as lines of text.
    """

    source: str
    normal_label: str
    spec: InputSpec
    native_size: tuple[int, int]
    normal: Images
    groups: tuple[str, ...]
    test: Images
    test_kinds: tuple[str, ...]
    normal_files: tuple[str, ...] = field(default=())
    test_files: tuple[str, ...] = field(default=())
    unreadable: tuple[tuple[Path, str], ...] = field(default=())
    remarks: tuple[str, ...] = field(default=())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the decoded normal images."""
        return fingerprint(self.normal)


def fingerprint(images: Images) -> str:
    """SHA-256 of decoded images, (N, C, H, W) float32."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(image.numpy().tobytes())
    return digest.hexdigest()


def load(source: Source, *, folder_size: tuple[int, int] = (64, 64)) -> Dataset:
    """Reads a built-in set by name, or an image folder by path.

    Args:
        source: what to read.
        folder_size: (height, width) for folders, if the source has no size.

    Raises:
        TrainingError: the images cannot be read or downloaded; the text says how to solve it.
    """
    if source.data in DOWNLOADED:
        return _torchvision(source)
    if source.data == "digits":
        return _digits(source)
    return _folder(source, source.size or folder_size)


def _torchvision(source: Source) -> Dataset:
    from torchvision.datasets import MNIST, FashionMNIST  # noqa: PLC0415  takes two seconds

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
    """The error of the last mirror, without the text that torchvision and urllib add."""
    text = " ".join(str(error).split()).rsplit("got: ", 1)[-1]
    return re.sub(r"^<urlopen error (\[Errno -?\d+\] )?(.*)>$", r"\2", text)


def _digits(source: Source) -> Dataset:
    from sklearn.datasets import load_digits  # noqa: PLC0415  takes a second

    bunch = load_digits()
    # 8-bit levels, so that PNG files of these images give the same tensors.
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    in_test = np.random.default_rng(0).random(len(images)) < _DIGITS_TEST_SHARE
    return _by_class(source, (images[~in_test], bunch.target[~in_test]), (images[in_test], bunch.target[in_test]))


_Labelled = tuple[np.ndarray, np.ndarray]


def _by_class(source: Source, train: _Labelled, test: _Labelled) -> Dataset:
    normal = set(source.normal)
    if not normal or not normal <= set(range(_CLASSES)):
        raise TrainingError(f"--normal must be labels from 0 to 9 for {source.data}, for example --normal 5")
    images, labels = train
    selected = images[np.isin(labels, list(normal))]
    test_images, test_labels = test
    return Dataset(
        source=source.data,
        normal_label=",".join(map(str, sorted(normal))),
        spec=InputSpec(mode="L", height=images.shape[1], width=images.shape[2]),
        native_size=images.shape[1:],
        normal=Images(selected[:, None]),
        groups=tuple(map(str, range(len(selected)))),
        test=Images(test_images[:, None]),
        test_kinds=tuple(NORMAL if label in normal else str(label) for label in test_labels),
    )


def _folder(source: Source, size: tuple[int, int]) -> Dataset:
    root = Path(source.data)
    if root.is_file():
        raise TrainingError(
            f"{root} is a file; --data must be a folder that contains {NORMAL}/, or one of {', '.join(BUILT_IN)}"
        )
    if not root.is_dir():
        suggestion = did_you_mean(source.data, BUILT_IN) or f"; choose a folder or one of {', '.join(BUILT_IN)}"
        raise TrainingError(f"{source.data!r} is neither a folder nor a built-in set{suggestion}")
    normal_files, test_files = folders.normal_files(root), folders.test_files(root)
    cache = source.data_dir / "decoded"
    levels = levels_of(source.levels, normal_files, cache=cache)
    spec = InputSpec(
        mode=folders.guess_mode(normal_files, levels) if source.mode == "auto" else source.mode,
        height=size[0],
        width=size[1],
        fit=source.fit,
        black=levels and levels.black,
        white=levels and levels.white,
        background=source.background,
    )
    normal = folders.decode_some(normal_files, spec, root / NORMAL, cache=cache)
    refuse_blank(normal.images, normal.remarks, spec)
    test = folders.decode([path for path, _ in test_files], spec, cache=cache)
    return Dataset(
        source=folders.name_of(root),
        normal_label=NORMAL,
        spec=spec,
        native_size=folders.typical_size(normal_files),
        normal=normal.images,
        groups=_groups([normal_files[index].relative_to(root / NORMAL) for index in normal.kept], source.groups),
        test=test.images,
        test_kinds=tuple(test_files[index][1] for index in test.kept),
        normal_files=tuple(_below(root, normal_files[index]) for index in normal.kept),
        test_files=tuple(_below(root, test_files[index][0]) for index in test.kept),
        unreadable=normal.unreadable + test.unreadable,
        remarks=(
            *(remark.line("normal") for remark in normal.remarks),
            *(remark.line("test") for remark in test.remarks),
        ),
    )


def _groups(files: Sequence[Path], rule: str) -> tuple[str, ...]:
    return tuple(folders.group_of(path, rule) for path in files)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
