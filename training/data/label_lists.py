"""Lists of labelled images in JSON Lines, as SageMaker Ground Truth and Lookout for Vision write them.

Each line has the address of an image, and its label with metadata:

    {"source-ref": "s3://bucket/parts/7.png", "anomaly-label": 1,
     "anomaly-label-metadata": {"class-name": "scratch", "type": "groundtruth/image-classification", …}}
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from app.files.search import PassedOver, find_images
from training.data.folders import NORMAL
from training.data.labelled_files import LabelledFile, LabelledFiles
from training.errors import TrainingError

SUFFIXES: Final = (".manifest", ".jsonl", ".ndjson")

_SOURCE: Final = "source-ref"
_LABEL: Final = "anomaly-label"
_METADATA: Final = "-metadata"
_CLASSIFICATION: Final = "groundtruth/image-classification"
_NORMAL_CLASSES: Final = {"normal", "good"}
_ANOMALY: Final = "anomaly"


def read(file: Path) -> LabelledFiles:
    """The images of a list: the normal ones to train on, the anomalies to evaluate on.

    Images are looked for below the folder of the list: the longest end of an address that is a path there, else the
    only image of that name.

    Raises:
        TrainingError: a line is not understood, images are missing or labelled twice, or none is normal.
    """
    folder, kinds = _Folder(file.parent), dict[Path, str]()
    missing: list[str] = []
    for number, line in _lines(file):
        record = _record(line, f"{file}, line {number}")
        kind = _kind(record, f"{file}, line {number}")
        if (path := folder.find(record[_SOURCE])) is None:
            missing.append(record[_SOURCE])
        elif kinds.setdefault(path, kind) != kind:
            raise TrainingError(f"{file}, line {number}: {path} is labelled {kind} here and {kinds[path]} before")
    if missing:
        raise TrainingError(
            f"{len(missing):,} of {len(missing) + len(kinds):,} images of {file} are not below {file.parent}, or "
            f"several images there have their name; the first is {missing[0]}"
        )
    normal = [path for path, kind in kinds.items() if kind == NORMAL]
    if not normal:
        raise TrainingError(f"{file} lists no normal images")
    common = Path(os.path.commonpath([path.parent for path in normal]))
    return LabelledFiles(
        root=file.parent,
        normal=tuple(LabelledFile(path, NORMAL, path.relative_to(common)) for path in sorted(normal)),
        test=tuple(LabelledFile(path, kind, path) for path, kind in sorted(kinds.items()) if kind != NORMAL),
    )


class _Folder:
    """Finds the files that addresses mean."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, address: str) -> Path | None:
        """The file of an address, or None if there is no such file, or more than one of its name."""
        if address.startswith("file://"):
            address = unquote(urlsplit(address).path)
        if (path := Path(address)).is_absolute() and path.is_file():
            return path
        parts = PurePosixPath(re.sub(r"^[a-z0-9+.-]+://", "", address)).parts
        for at in range(len(parts)):
            if (path := self._folder.joinpath(*parts[at:])).is_file():
                return path
        same_name = self._by_name.get(parts[-1] if parts else "", [])
        return same_name[0] if len(same_name) == 1 else None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        by_name = defaultdict(list)
        for path in map(Path, find_images(str(self._folder), PassedOver())):
            by_name[path.name].append(path)
        return by_name


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{file} is not a list of labelled images: it is not text in UTF-8") from error
    return ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get(_SOURCE), str):
        raise TrainingError(f"{where} has no {_SOURCE} with the address of an image")
    return record


def _kind(record: dict[str, Any], where: str) -> str:
    """``normal`` or the kind of anomaly. The name of the class decides; a number alone is 0 for normal, else 1."""
    attribute = _label_attribute(record, where)
    metadata = record.get(f"{attribute}{_METADATA}")
    name = metadata.get("class-name") if isinstance(metadata, dict) else None
    if isinstance(name, str) and name.strip():
        return NORMAL if name.strip().lower() in _NORMAL_CLASSES else name.strip()
    by_number = {"0": NORMAL, "1": _ANOMALY}
    if (number := str(record[attribute])) not in by_number:
        raise TrainingError(
            f"{where}: {attribute} is {number}; it must be 0 or 1, or have a class-name in its metadata"
        )
    return by_number[number]


def _label_attribute(record: dict[str, Any], where: str) -> str:
    names = [_LABEL] if _LABEL in record else _classifications(record)
    if len(names) != 1:
        what = f"several labels ({', '.join(names)})" if names else f"no label such as {_LABEL}"
        raise TrainingError(f"{where} has {what}")
    return names[0]


def _classifications(record: dict[str, Any]) -> Sequence[str]:
    """Attributes whose metadata say that they classify the image."""
    return [
        name
        for name in record
        if isinstance(metadata := record.get(f"{name}{_METADATA}"), dict)
        and (metadata.get("type") == _CLASSIFICATION or "class-name" in metadata)
    ]
