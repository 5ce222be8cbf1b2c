"""Layouts of image data: which files are normal, and which show an anomaly of which kind.

    normal/      [test/normal/]  [test/anomaly/KIND/]     this project's own
    train/good/  [test/good/]    [test/KIND/]             MVTec AD
    train/normal/  [train/anomaly/]  [test/normal/]  …    Lookout for Vision
    *.png                                                 one folder of normal images
    FILE.manifest                                         a list of labelled images

Names are read in upper or lower case. Anomalies are for evaluation only, wherever they are. Masks of their defects, in
``ground_truth/KIND/NAME_mask.png`` or ``ground_truth/KIND/NAME.png``, are never taken for images.
"""

import shlex
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from app.files.formats import SUFFIXES
from app.files.search import LOCAL_FILES, PassedOver, find_images, folder_identity, is_hidden
from training.data import label_lists
from training.data.folders import NORMAL
from training.data.labelled_files import LabelledFile, LabelledFiles
from training.errors import TrainingError

_NORMAL_NAMES: Final = (NORMAL, "good")
_NORMAL_FOLDERS: Final = ((NORMAL,), ("train", "good"), ("train", NORMAL))
_ANOMALY: Final = "anomaly"
_TEST: Final = "test"
_MASKS: Final = ("ground_truth", "masks", "mask")
_MASK_SUFFIX: Final = "_mask"
_LIKELY_NORMAL: Final = (*_NORMAL_NAMES, "ok", "pass", "healthy")
_MOST_FOLDERS: Final = 8
_DIRECTLY: Final = "directly in it"


def read(source: Path) -> LabelledFiles:
    """The images of a folder or of a list, for training.

    Raises:
        TrainingError: there are no normal images, or it cannot be told which images are; the text says what was found
            and which command would work.
        OSError: a folder cannot be read.
    """
    if (files := _read_known(source)) is not None:
        return files
    files = _read_all(source)
    if any(file.place.name != str(file.place) for file in files.normal):
        raise TrainingError(_ambiguous(source, [file.path for file in files.normal]))
    return files


def read_normal(source: Path) -> LabelledFiles:
    """The images of a folder or of a list, for a threshold: without a known layout, all images of a folder are normal.

    Raises:
        TrainingError: there are no normal images.
        OSError: a folder cannot be read.
    """
    return _read_known(source) or _read_all(source)


def _read_known(source: Path) -> LabelledFiles | None:
    """The images of a list, or of a folder whose normal images are known by the name of their folder."""
    if source.is_file():
        return label_lists.read(source)
    if (normal := _normal_folder(source)) is None:
        return None
    images = _ImagesBelow(source)
    normal_files = tuple(LabelledFile(path, NORMAL, path.relative_to(normal)) for path in images.some_in(normal))
    anomalies = [file for folder in _named(normal.parent, _ANOMALY) for file in images.anomalies_in(folder)]
    tested = [file for folder in _named(source, _TEST) for file in images.tested_in(folder)]
    masks = _masks_below(source)
    test = [
        file._replace(mask=masks.get((file.kind, file.path.stem)))
        for file in sorted((*tested, *anomalies), key=lambda file: file.kind != NORMAL)
    ]
    return LabelledFiles(source, normal_files, tuple(test), tuple(images.remarks()))


def _masks_below(root: Path) -> dict[tuple[str, str], Path]:
    """The masks of test images, by the kind of defect and the name of the image without its suffix."""
    folders = [each for parent in (root, *_named(root, _TEST)) for each in _named(parent, *_MASKS)]
    found = [
        (folder, Path(path)) for folder in folders for path in find_images(str(folder), PassedOver(), visited=set())
    ]
    return {
        (path.relative_to(folder).parts[0], path.stem.removesuffix(_MASK_SUFFIX)): path
        for folder, path in found
        if path.parent != folder
    }


def _read_all(source: Path) -> LabelledFiles:
    """All images below a folder, as normal ones."""
    images = _ImagesBelow(source)
    files = tuple(LabelledFile(path, NORMAL, path.relative_to(source)) for path in images.some_in(source))
    return LabelledFiles(source, files, (), tuple(images.remarks()))


class _ImagesBelow:
    """The images below a root, searched for folder by folder.

    Args:
        root: links back to it are not followed, so that they cannot mix the folders.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._passed_over = PassedOver()
        self._searched: set[Hashable] = set()

    def some_in(self, folder: Path) -> list[Path]:
        """All images below a folder.

        Raises:
            TrainingError: there are none.
        """
        if images := self._in(folder):
            return images
        text = f"{folder} contains no images ({', '.join(SUFFIXES)})"
        raise TrainingError("; ".join([text, *self._passed_over.lines()]))

    def anomalies_in(self, folder: Path) -> Iterator[LabelledFile]:
        """Anomalies in sub-folders that are their kinds, or directly in a folder."""
        for path in self._in(folder):
            kind, *more = path.relative_to(folder).parts
            yield LabelledFile(path, kind if more and kind != NORMAL else _ANOMALY, path.relative_to(folder))

    def tested_in(self, folder: Path) -> Iterator[LabelledFile]:
        """Test images: their kind is the name of their sub-folder, or ``anomaly`` holds the kinds."""
        for each in _sub_folders(folder):
            if each.name.lower() == _ANOMALY:
                yield from self.anomalies_in(each)
            elif each.name.lower() not in _MASKS:
                kind = NORMAL if each.name.lower() in _NORMAL_NAMES else each.name
                yield from (LabelledFile(path, kind, path.relative_to(each)) for path in self._in(each))

    def remarks(self) -> list[str]:
        """What was not looked at, and images in other places than those that were searched."""
        parents = [self._root, *_named(self._root, _TEST)]
        masks = [folder for parent in parents for folder in _named(parent, *_MASKS)]
        visited = self._searched | set(map(folder_identity, masks))
        unused = _by_place(self._root, map(Path, find_images(str(self._root), self._passed_over, visited=visited)))
        text = f"{unused.total():,} images in other places of {self._root} are not used: {_listed(unused)}"
        return [*([text] if unused else []), *self._passed_over.lines()]

    def _in(self, folder: Path) -> list[Path]:
        barred = {folder_identity(self._root)} - {folder_identity(folder)}
        visited = set(barred)
        images = [Path(path) for path in find_images(str(folder), self._passed_over, visited=visited)]
        self._searched |= visited - barred
        return images


def _normal_folder(root: Path) -> Path | None:
    """The folder of the normal images, if its name tells."""
    for names in _NORMAL_FOLDERS:
        folders = [root]
        for name in names:
            folders = [found for folder in folders for found in _named(folder, name)]
        if folders:
            return folders[0]
    return None


def _named(folder: Path, *names: str) -> list[Path]:
    """The sub-folders with one of some names, in upper or lower case."""
    return [each for each in _sub_folders(folder) if each.name.lower() in names]


def _sub_folders(folder: Path) -> list[Path]:
    entries = sorted(LOCAL_FILES.entries(str(folder)))
    return [folder / entry.name for entry in entries if entry.kind == "folder" and not is_hidden(entry.name)]


def _ambiguous(root: Path, images: Sequence[Path]) -> str:
    """What was found in a folder without a known layout, and the commands that would work."""
    places, guess = _by_place(root, images), _likeliest(root, images)
    found = f"{root} has none of the known layouts, so it cannot be told which images are normal: {_listed(places)}. "
    if _normal_folder(guess) is None and len(places) == 1 and guess.parent != root:
        return _ambiguous(root / images[0].relative_to(root).parts[0], images)
    if _normal_folder(guess) is not None:
        return f"{found}For one data set: `{_command(guess)}`"
    new = Path(f"{root.resolve().name}-normal")
    whole, inside = shlex.quote(str(root.resolve())), shlex.quote(f"{new}/{NORMAL}")
    some, command = f"in {guess}", _command(guess)
    if places[_DIRECTLY] > len(images) / 2:
        some = f"directly in {root}"
        links = f"find {whole} -maxdepth 1 -type f -exec ln -s {{}} {inside} ';'"
        command = f"mkdir -p {inside} && {links} && {_command(new)}"
    return (
        f"{found}If the normal images are those {some}: `{command}`. "
        f"If all are normal: `mkdir {shlex.quote(str(new))} && ln -s {whole} {inside} && {_command(new)}`"
    )


def _likeliest(root: Path, images: Iterable[Path]) -> Path:
    """The folder below a root to train on: one with a known layout, or without sub-folders of images.

    Of the latter, one with a likely name, else the one with most images.
    """
    if known := [folder for folder in _sub_folders(root) if _normal_folder(folder) is not None]:
        return known[0]
    counts = Counter(path.parent for path in images)
    inner = {parent for folder in counts for parent in folder.parents}
    leaves = sorted(folder for folder in counts if folder not in inner)
    likely = [folder for folder in leaves if folder.name.lower() in _LIKELY_NORMAL]
    return likely[0] if likely else max(leaves, key=counts.__getitem__)


def _by_place(root: Path, images: Iterable[Path]) -> Counter[str]:
    """How many images there are in each sub-folder, and directly in the root."""
    places = (path.relative_to(root).parts for path in images)
    return Counter(f"{first}/" if more else _DIRECTLY for first, *more in places)


def _listed(places: Counter[str]) -> str:
    most = places.most_common(_MOST_FOLDERS)
    rest = places.total() - sum(count for _, count in most)
    return ", ".join(f"{place} {count:,}" for place, count in [*most, *([("others", rest)] if rest else [])])


def _command(data: Path) -> str:
    return f"python -m training --data {shlex.quote(str(data))}"
