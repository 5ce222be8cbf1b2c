"""Retraining: fits a model again with images that operators labelled, and compares it with the one before.

Labelled normal images join the training, except for a quarter that is held out. Labelled anomalies are only evaluated
on. The held-out images and the test images of the data set are new to both versions, so both are compared on them.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from app.inference.bundles import labels
from app.inference.bundles.bundle import Bundle
from app.inference.bundles.labels import Label
from app.inference.bundles.manifest import Manifest
from app.inference.decisions.conformal import is_anomaly
from app.inference.machine import usable_cores
from training.data import folders
from training.data.datasets import BUILT_IN, Source, files_of
from training.data.folders import NORMAL
from training.data.labelled_files import LabelledFile
from training.errors import TrainingError
from training.evaluation.scores import score_all
from training.model.recipes import Recipe
from training.model.scoring_rules import FEATURE_RULE, SCORING_RULES
from training.run import Run

LABELLED: Final = "labelled"
"""Kind of the anomalies that operators labelled."""

_HELD_OUT: Final = 4  # one of so many labelled normal images
_HASH_DIGITS: Final = 8


@dataclass(frozen=True)
class LabelledImages:
    """Images that operators labelled.

    Attributes:
        normal: to train on.
        held_out: normal images and anomalies to evaluate on.
        missing: number of labels whose image is not stored.
        unreadable: number of lines that are not valid labels.
    """

    normal: tuple[LabelledFile, ...]
    held_out: tuple[LabelledFile, ...]
    missing: int
    unreadable: int


class Comparison(NamedTuple):
    """What two versions say of the same images.

    Attributes:
        what: which images.
        images: their number.
        before: how many the old version calls anomalies.
        after: how many the new version does.
    """

    what: str
    images: int
    before: int
    after: int


def labelled_images(name: str, file: Path, folder: Path) -> LabelledImages:
    """The images that were labelled for a model, by whichever of its versions they were scored.

    A quarter of the normal ones is held out: always the same, chosen by the hash of the image, so that no later version
    is compared on images that an earlier one was trained on.

    Args:
        name: of the model.
        file: labels, as the service writes them.
        folder: stored images, likewise.

    Raises:
        TrainingError: the file cannot be read, or no label has a stored image.
    """
    try:
        found = labels.read(file)
    except OSError as error:
        raise TrainingError(f"{file} cannot be read: {error.strerror}") from error
    latest: dict[str, Label] = {}
    for label in sorted(found.labels, key=lambda each: each.labelled_at):
        if label.model == name:
            latest[label.picture] = label
    stored = {picture: path for picture, label in latest.items() if (path := _image_of(label, folder)) is not None}
    if not stored:
        raise TrainingError(
            f"{file} has {len(latest):,} labels for {name}, and {folder} has none of their images; the service stores "
            "them if ANOMALY_FEEDBACK_IMAGES names a folder"
        )
    normal, held_out = list[LabelledFile](), list[LabelledFile]()
    for picture, path in stored.items():
        is_normal = latest[picture].verdict == NORMAL
        kept = is_normal and int(picture[:_HASH_DIGITS], 16) % _HELD_OUT
        (normal if kept else held_out).append(LabelledFile(path, NORMAL if is_normal else LABELLED, Path(path.name)))
    return LabelledImages(tuple(normal), tuple(held_out), len(latest) - len(stored), found.unreadable)


def _image_of(label: Label, folder: Path) -> Path | None:
    """The stored image of a label. Labels are not signed: nothing outside the folder is read."""
    if label.image is None or Path(label.image).name != label.image:
        return None
    path = folder / label.image
    return path if path.is_file() and not path.is_symlink() else None


def run_like(manifest: Manifest, source: Source, images: LabelledImages, store: Path) -> Run:
    """A run that fits the model of a manifest again, with labelled images added, and does not activate it.

    Args:
        manifest: says how the model was trained.
        source: the data set that it was trained on; its size and all below follow from the manifest.
        images: to add.
        store: of the model.

    Raises:
        TrainingError: the data set has no files to add to, or the manifest is that of another program version.
    """
    if source.data in BUILT_IN:
        raise TrainingError(f"labelled images can be added to a folder or list of images, not to {source.data}")
    spec, interest = manifest.input, manifest.region_of_interest
    try:
        recipe = Recipe(**manifest.training.recipe)  # type: ignore[arg-type]  # checked by its constructor
        rule = FEATURE_RULE if recipe.backbone else SCORING_RULES[manifest.scoring.rule]
    except (TypeError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{manifest.name} {manifest.version} was trained by another version of this program"
        ) from error
    return Run(
        source=replace(
            source,
            size=(spec.height, spec.width),
            mode=spec.mode,
            fit=spec.fit,
            levels=spec.levels or "full",
            background=spec.background,
            mask=None if interest is None else base64.b64decode(interest.mask),
            added=images.normal,
            added_test=images.held_out,
        ),
        name=manifest.name,
        recipe=recipe,
        rule=rule,
        store=store,
        false_alarm_rate=manifest.false_alarm_rate,
        guarantee=manifest.guarantee,
        seed=manifest.training.seed,
        device="auto",
        threads=usable_cores() if recipe.backbone else 1,
        calibration="cross" if manifest.calibration.folds else "split",
        activate=False,
    )


def compare(before: Bundle, after: Bundle, source: Source) -> list[Comparison]:
    """Both versions at their own thresholds, on images that neither was trained on.

    Args:
        before: the old version.
        after: the new version.
        source: of the new version; its test images are compared on.

    Returns:
        One row for each kind of image, normal images first.
    """
    files = sorted(files_of(source).test, key=lambda file: _what(file, source))
    flags = zip(files, _flags(before, files, source), _flags(after, files, source), strict=True)
    rows = list[Comparison]()
    for what, group in groupby(flags, key=lambda row: _what(row[0], source)):
        both = [(old, new) for _, old, new in group if old is not None and new is not None]
        if both:
            rows.append(Comparison(what[1], len(both), sum(old for old, _ in both), sum(new for _, new in both)))
    return rows


def _what(file: LabelledFile, source: Source) -> tuple[bool, str]:
    """A sort key and the name of a kind of images."""
    is_normal = file.kind == NORMAL
    added = file in source.added_test
    return not is_normal, f"{LABELLED} {NORMAL if is_normal else 'anomaly'}" if added else file.kind


def _flags(bundle: Bundle, files: Sequence[LabelledFile], source: Source) -> Iterator[bool | None]:
    """Whether each image is an anomaly; None if it cannot be read."""
    decoded = folders.decode([file.path for file in files], bundle.spec, cache=source.data_dir / "decoded")
    scores = dict(zip(decoded.kept, score_all(bundle.model, decoded.images).score, strict=True))
    threshold = bundle.operating_point().threshold
    for position in range(len(files)):
        score = scores.get(position)
        yield None if score is None else is_anomaly(score, threshold)
