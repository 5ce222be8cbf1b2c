"""Data sets: MNIST, Fashion-MNIST, scikit-learn's digits, or a folder of images.

Image files are decoded by the code of the service, and the built-in sets are 8-bit values / 255, so an image gives the
same tensor in training and in serving.
"""

import gzip
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.error import URLError

import numpy as np

from app.inference.decisions.regions import Cells
from app.inference.images.model_input import Fit, InputSpec
from app.suggestions import did_you_mean
from training.data import folders, label_lists, layouts
from training.data.folders import NORMAL, Mode
from training.data.images import Images
from training.data.interest import Rectangle, read_interest
from training.data.labelled_files import LabelledFile, LabelledFiles
from training.data.levels import LevelsRule, levels_of
from training.data.masks import read_masks
from training.data.remarks import Remark
from training.errors import TrainingError

DOWNLOADED: Final = ("mnist", "fashion-mnist")
BUILT_IN: Final = (*DOWNLOADED, "digits")

_DIGITS_TEST_SHARE: Final = 0.2
_CLASSES: Final = 10


@dataclass(frozen=True)
class Source:
    """Which images to read.

    Attributes:
        data: one of ``BUILT_IN``, or a folder or list of images in a layout of :mod:`training.data.layouts`.
        normal: class labels that are normal, for the built-in sets.
        data_dir: folder of torchvision's sets, which are downloaded if missing, and cache of decoded folders.
        size: (height, width) of the model's input, for folders; None: the recipe's.
        mode: colour mode of the model's input, for folders.
        groups: how images of a folder form groups: ``folder``, ``none`` or a regular expression.
        fit: how images of a folder are brought to the size if they have other proportions.
        exclude: a list of image files of the folder that are left out.
        levels: which values become black and white in images of a folder of more than 8 bits.
        background: what transparent images of a folder are flattened onto.
        added: further normal images, to train on together with those of a folder.
        added_test: further images to evaluate on.
        mask: an image file in which the region of interest is white, or its content, for folders.
        roi: the region of interest as a rectangle, for folders; instead of a mask.
    """

    data: str
    normal: tuple[int, ...] = ()
    data_dir: Path = Path("data")
    size: tuple[int, int] | None = None
    mode: Mode = "auto"
    groups: str = "folder"
    fit: Fit = "stretch"
    exclude: Path | None = None
    levels: LevelsRule = "auto"
    background: str = "black"
    added: tuple[LabelledFile, ...] = ()
    added_test: tuple[LabelledFile, ...] = ()
    mask: Path | bytes | None = None
    roi: Rectangle | None = None

    @property
    def root(self) -> Path:
        """The folder that the names of the files are relative to; without meaning for the built-in sets."""
        path = Path(self.data)
        return path if path.is_dir() else path.parent


@dataclass(frozen=True)
class Reading:
    """Callbacks that follow the reading of a folder.

    Attributes:
        begins: called with the number of images.
        on_image: called after each one that is decoded; not for those that were decoded before.
    """

    begins: Callable[[int], None] = lambda _: None
    on_image: Callable[[], None] = lambda: None


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
        inside: (H, W) at the size of ``spec``: true in the region of interest, outside of which images are black;
            None: all of the images counts.
        test_masks: M masks, (H, W) at the size of ``spec``: true where the defect is, all false for normal images;
            None: it is not known where it is. Empty for the built-in sets.
        test_groups: M names of groups within their kind; empty for the built-in sets.
        normal_files: N paths, relative to the folder; empty for the built-in sets.
        test_files: M paths, relative to the folder; empty for the built-in sets.
        unreadable: files that were skipped, with the reason.
        remarks: what was not read and what decoding changed in the images, as lines of text.
        changes: what decoding changed in the normal images.
        excluded: number of files that the user left out.
    """

    source: str
    normal_label: str
    spec: InputSpec
    native_size: tuple[int, int]
    normal: Images
    groups: tuple[str, ...]
    test: Images
    test_kinds: tuple[str, ...]
    inside: Cells | None = None
    test_masks: tuple[Cells | None, ...] = field(default=())
    test_groups: tuple[str, ...] = field(default=())
    normal_files: tuple[str, ...] = field(default=())
    test_files: tuple[str, ...] = field(default=())
    unreadable: tuple[tuple[Path, str], ...] = field(default=())
    remarks: tuple[str, ...] = field(default=())
    changes: tuple[Remark, ...] = field(default=())
    excluded: int = 0

    def normal_name(self, position: int) -> str:
        """What users know a normal image by: its file, or its number in a built-in set."""
        return self.normal_files[position] if self.normal_files else f"image {position}"

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


def load(source: Source, *, folder_size: tuple[int, int] = (64, 64), reading: Reading | None = None) -> Dataset:
    """Reads a built-in set by name, or a folder or list of images by path.

    Args:
        source: what to read.
        folder_size: (height, width) for folders, if the source has no size.
        reading: follows it.

    Raises:
        TrainingError: the images cannot be read or downloaded; the text says how to solve it.
    """
    if source.data in BUILT_IN and source.exclude is not None:
        raise TrainingError(f"--exclude is for folders: {source.data} has no files to leave out")
    if source.data in BUILT_IN and (source.mask is not None or source.roi is not None):
        raise TrainingError(f"--mask and --roi are for folders, not for {source.data}")
    if source.data in DOWNLOADED:
        return _torchvision(source)
    if source.data == "digits":
        return _digits(source)
    return _files(source, source.size or folder_size, reading or Reading())


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
        spec=InputSpec(mode="L", height=images.shape[1], width=images.shape[2], reduction="area", jpeg="scaled"),
        native_size=images.shape[1:],
        normal=Images(selected[:, None]),
        groups=tuple(map(str, range(len(selected)))),
        test=Images(test_images[:, None]),
        test_kinds=tuple(NORMAL if label in normal else str(label) for label in test_labels),
    )


def files_of(source: Source) -> LabelledFiles:
    """The image files of a folder or list.

    Raises:
        TrainingError: there is no such folder or list, or it cannot be read.
    """
    files = layouts.read(_existing(source.data))
    if source.exclude is not None:
        files = files.without(source.exclude)
    return files.with_added(source.added, held_out=source.added_test)


def _files(source: Source, size: tuple[int, int], reading: Reading) -> Dataset:
    files = files_of(source)
    normal_paths, test_paths = [file.path for file in files.normal], [file.path for file in files.test]
    cache = source.data_dir / "decoded"
    levels = levels_of(source.levels, normal_paths, cache=cache)
    spec = InputSpec(
        mode=folders.guess_mode(normal_paths, levels) if source.mode == "auto" else source.mode,
        height=size[0],
        width=size[1],
        fit=source.fit,
        reduction="area",
        jpeg="scaled",
        black=levels and levels.black,
        white=levels and levels.white,
        background=source.background,
    )
    reading.begins(len(normal_paths) + len(test_paths))
    decoded = folders.decode_some(normal_paths, spec, Path(source.data), cache=cache, on_image=reading.on_image)
    decoded_test = folders.decode(test_paths, spec, cache=cache, on_image=reading.on_image)
    inside = read_interest(source.mask, source.roi, normal_paths, spec)
    masks = read_masks([files.test[at] for at in decoded_test.kept], spec)
    normal, test = [files.normal[at] for at in decoded.kept], [files.test[at] for at in decoded_test.kept]
    return Dataset(
        source=folders.name_of(Path(source.data)),
        normal_label=NORMAL,
        spec=spec,
        native_size=folders.typical_size(normal_paths),
        normal=decoded.images.within(inside),
        inside=inside,
        groups=tuple(folders.group_of(file.place, source.groups) for file in normal),
        test=decoded_test.images.within(inside),
        test_kinds=tuple(file.kind for file in test),
        test_masks=tuple(mask if mask is None or inside is None else mask & inside for mask in masks.masks),
        test_groups=tuple(folders.group_of(file.place, source.groups) for file in test),
        normal_files=tuple(map(files.name_of, normal)),
        test_files=tuple(map(files.name_of, test)),
        unreadable=decoded.unreadable + decoded_test.unreadable,
        remarks=(
            *files.remarks,
            *(remark.line("normal") for remark in decoded.remarks),
            *(remark.line("test") for remark in decoded_test.remarks),
            *masks.remarks(),
        ),
        changes=decoded.remarks,
        excluded=files.excluded,
    )


def _existing(data: str) -> Path:
    """The folder or list of images that a source names."""
    path = Path(data)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in label_lists.SUFFIXES):
        return path
    if path.is_file():
        raise TrainingError(
            f"{path} is a file; --data must be a folder of images, a list of labelled images "
            f"({', '.join(label_lists.SUFFIXES)}), or one of {', '.join(BUILT_IN)}"
        )
    suggestion = did_you_mean(data, BUILT_IN) or f"; choose a folder or one of {', '.join(BUILT_IN)}"
    raise TrainingError(f"{data!r} is neither a folder nor a built-in set{suggestion}")
