"""A new threshold for weights that are there already: score new normal images, calibrate, publish.

The promise is that of any calibration: it holds for images drawn like the new ones, which the weights must not
have been fitted on.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Final

import numpy as np

from app.inference.bundles import labels
from app.inference.bundles.bundle import MODEL_FILE, Bundle, file_record
from app.inference.bundles.labels import Label
from app.inference.bundles.manifest import CalibrationRecord, Data, Evaluation, Manifest, Recalibration
from app.inference.bundles.signing import SigningKey
from app.inference.bundles.store import ModelStore, new_version
from app.inference.decisions.conformal import Calibration, Guarantee, anomaly_rate, promise
from app.inference.errors import InferenceError, UnsupportedFalseAlarmRate
from training import report
from training.data import folders
from training.data.duplicates import hashes, near_duplicates
from training.data.folders import NORMAL
from training.errors import TrainingError
from training.evaluation import score_all

_WITHIN: Final = "within calibration"
_LABELLED: Final = (
    "; the calibration images are those that operators labelled normal: it is worth something only if they labelled "
    "every image or a random sample, not just what was flagged"
)


@dataclass(frozen=True)
class NewImages:
    """What the new threshold is set by.

    Attributes:
        normal: scores of normal images.
        anomalies: scores of images that were labelled anomalies; they decide nothing.
        data: where they come from.
        unreadable: files or lines that were passed over, each in a line of text.
        caveat: what must be added to the promise.
    """

    normal: Sequence[float]
    anomalies: Sequence[float]
    data: Data
    unreadable: Sequence[str]
    caveat: str = ""


@dataclass(frozen=True)
class Recalibrated:
    """The new version beside the old one."""

    before: Manifest
    after: Manifest
    directory: Path


def from_images(bundle: Bundle, folder: Path, groups: str) -> NewImages:
    """Scores the images of a folder, or of its ``normal/`` where it is laid out for training.

    Args:
        bundle: decodes and scores them as the service does.
        folder: normal images, and nothing else.
        groups: what is one thing: ``folder``, ``none`` or a regular expression.

    Raises:
        TrainingError: there is no such folder, or no readable image in it.
    """
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}")
    root = folder / NORMAL if (folder / NORMAL).is_dir() else folder
    files = folders.image_files(root)
    if not files:
        raise TrainingError(f"{root} holds no images")
    decoded = folders.decode(files, bundle.spec, cache=None)
    if not decoded.kept:
        path, reason = decoded.unreadable[0]
        raise TrainingError(f"none of the {len(files)} images in {root} can be read; the first, {path.name}: {reason}")
    alike = hashes(decoded.images)
    pairs = [pair for pair in near_duplicates(alike, alike) if pair.first < pair.second]
    things = {folders.group_of(files[index].relative_to(root), groups) for index in decoded.kept}
    return NewImages(
        normal=score_all(bundle.model, decoded.images).score,
        anomalies=(),
        data=Data(
            source=folder.resolve().name.encode(errors="replace").decode(),
            normal=NORMAL,
            fingerprint=hashlib.sha256(np.ascontiguousarray(decoded.images.numpy()).tobytes()).hexdigest(),
            groups=len(things),
            unreadable=len(decoded.unreadable),
            near_duplicates={_WITHIN: len(pairs)},
        ),
        unreadable=[f"{path}: {reason}" for path, reason in decoded.unreadable],
    )


def from_labels(store: ModelStore, bundle: Bundle, file: Path) -> NewImages:
    """Takes the scores of labelled images, given by this version or by another with the same weights.

    Raises:
        TrainingError: the file cannot be read, or holds no image of this model that was labelled normal.
    """
    manifest = bundle.manifest
    try:
        found = labels.read(file)
    except OSError as error:
        raise TrainingError(f"{file} cannot be read: {error.strerror}") from error
    same = _versions_with_same_weights(store, manifest, {label.version for label in found.labels})
    mine = {label.picture: label for label in found.labels if label.model == manifest.name and label.version in same}
    normal, anomalies = ([each for each in mine.values() if each.verdict == word] for word in ("normal", "anomaly"))
    if not normal:
        raise TrainingError(
            f"{file} has no label 'normal' for {manifest.name} {manifest.version} or a version with the same weights; "
            f"it has {len(found.labels):,} labels in all"
        )
    return NewImages(
        normal=[each.score for each in normal],
        anomalies=[each.score for each in anomalies],
        data=Data(
            source=f"labels in {file.name}",
            normal="labelled normal by operators",
            fingerprint=_fingerprint(normal),
            groups=len(normal),
            unreadable=found.unreadable,
            near_duplicates=None,
        ),
        unreadable=[f"{found.unreadable:,} lines of {file} that are no labels"] if found.unreadable else [],
        caveat=_LABELLED,
    )


def _versions_with_same_weights(store: ModelStore, manifest: Manifest, versions: set[str]) -> set[str]:
    """A recalibrated version gives every image the score that its predecessor gave it."""
    same = {manifest.version}
    for version in versions & set(store.versions(manifest.name)):
        try:
            files = store.manifest(manifest.name, version).files
        except InferenceError:
            continue  # a broken version vouches for nothing
        if files.get(MODEL_FILE) == manifest.files[MODEL_FILE]:
            same.add(version)
    return same


def _fingerprint(used: Sequence[Label]) -> str:
    lines = sorted(f"{label.version} {label.picture} {label.score!r}\n" for label in used)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def recalibrate(
    store: ModelStore,
    bundle: Bundle,
    new: NewImages,
    *,
    false_alarm_rate: float,
    guarantee: Guarantee,
    key: SigningKey | None,
) -> Recalibrated:
    """Publishes the weights of a version with a threshold from new images.

    Raises:
        TrainingError: there are too few images; the text says how many it takes.
        StoreNotWritable, BundleRejected: publishing failed; the store serves what it served.
    """
    before, calibration = bundle.manifest, Calibration(new.normal)
    try:
        threshold = calibration.threshold_for(false_alarm_rate, guarantee)
    except UnsupportedFalseAlarmRate as error:
        raise TrainingError(f"too few normal images: {error}") from error
    draft = before.model_copy(
        update={
            "version": new_version(),
            "created_at": datetime.now(UTC).replace(microsecond=0),
            "threshold": threshold,
            "false_alarm_rate": false_alarm_rate,
            "guarantee": guarantee,
            "promise": promise(false_alarm_rate, guarantee, len(calibration)) + new.caveat,
            "evaluation": _still_true(before.evaluation),
            "recalibration": Recalibration(
                version=before.version,
                threshold=before.threshold,
                false_alarm_rate=before.false_alarm_rate,
                guarantee=before.guarantee,
                size=before.calibration.size,
                flagged=anomaly_rate(new.normal, before.threshold),
                data=new.data,
            ),
            "calibration": CalibrationRecord(size=len(calibration), scores=calibration.scores),
        }
    )
    kept = _files_of(store, before, [MODEL_FILE, *(f"report/{name}.png" for name in report.WITHOUT_THRESHOLD)])
    images = {PurePath(name).stem: content for name, content in kept.items() if name != MODEL_FILE}
    files = {MODEL_FILE: kept[MODEL_FILE], **report.write_recalibrated(before, draft, images)}
    after = draft.model_copy(update={"files": {name: file_record(content) for name, content in files.items()}})
    return Recalibrated(before, after, store.publish(after, files, key))


def _still_true(evaluation: Evaluation | None) -> Evaluation | None:
    """The figures that hang on the scores alone: rates at the old threshold are no rates at the new one."""
    return evaluation and evaluation.model_copy(update={"false_alarm_rate": None, "detection_rate": None, "kinds": {}})


def _files_of(store: ModelStore, manifest: Manifest, names: Iterable[str]) -> dict[str, bytes]:
    """Those of the names that the version has, each verified."""
    return {name: store.file(manifest, name) for name in names if name in manifest.files}
