"""Recalibration: publishes a new version with the same weights and a threshold from new normal images.

The guarantee is that of every calibration: it holds for images drawn like the new ones, if the weights were not
fitted on them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, Final

from app.inference.bundles import labels
from app.inference.bundles.bundle import MODEL_FILE, Bundle, file_record
from app.inference.bundles.labels import Label
from app.inference.bundles.manifest import CalibrationRecord, Data, Evaluation, Manifest, Recalibration
from app.inference.bundles.signing import SigningKey
from app.inference.bundles.store import ModelStore, new_version
from app.inference.decisions.conformal import Guarantee, anomaly_rate, calibrate
from app.inference.errors import InferenceError, UnsupportedFalseAlarmRate
from training.data import folders, layouts
from training.data.datasets import fingerprint
from training.data.duplicates import hashes, near_duplicates
from training.data.folders import NORMAL
from training.data.suitability import accepted, doubts
from training.errors import TrainingError
from training.evaluation.scores import score_all
from training.reporting import page
from training.reporting.samples import is_sample
from training.suspects import Suspect, most_suspicious

_WITHIN: Final = "within calibration"
_LABELLED: Final = (
    "; the calibration images are those that operators labelled normal: the guarantee holds only if they labelled "
    "every image or a random sample, not only flagged images"
)


@dataclass(frozen=True)
class NewImages:
    """Scores of new images.

    Attributes:
        normal: scores of normal images; they set the threshold.
        groups: the name of the group of each of them; None: every image is its own group.
        anomalies: scores of images that were labelled anomalies, for the output only.
        data: the origin of the normal images.
        skipped: one line of text for each file, or for all lines, that could not be read.
        caveat: a restriction to add to the promise.
        remarks: what was not read and what decoding changed in the images, as lines of text.
        warnings: why the images are not suitable, if the user insists.
        suspects: the normal images with the highest scores, the highest first; none for labels.
    """

    normal: Sequence[float]
    groups: Sequence[str] | None
    anomalies: Sequence[float]
    data: Data
    skipped: Sequence[str]
    caveat: str = ""
    remarks: Sequence[str] = ()
    warnings: Sequence[str] = ()
    suspects: Sequence[Suspect] = ()


@dataclass(frozen=True)
class Recalibrated:
    """The manifests of the old and the new version, and the folder of the new one."""

    before: Manifest
    after: Manifest
    directory: Path


def from_images(
    bundle: Bundle, source: Path, groups: str, *, exclude: Path | None = None, force: bool = False
) -> NewImages:
    """Scores the normal images of a folder or list, read as training reads it; without a known layout, all images.

    Args:
        bundle: scores the images.
        source: normal images only, or training data.
        groups: how images form groups: ``folder``, ``none`` or a regular expression.
        exclude: a list of images to leave out.
        force: accept images that are not suitable, with warnings.

    Raises:
        TrainingError: the source does not exist, contains no readable image, or its images are not suitable.
    """
    if not source.exists():
        raise TrainingError(f"folder not found: {source}")
    files = layouts.read_normal(source)
    if exclude is not None:
        files = files.without(exclude)
    decoded = folders.decode_some([file.path for file in files.normal], bundle.spec, source, cache=None)
    reasons = doubts(decoded.images, None, remarks=decoded.remarks, background=bundle.spec.background)
    warnings = accepted(reasons, force=force)
    kept = [files.normal[at] for at in decoded.kept]
    image_hashes = hashes(decoded.images)
    pairs = [pair for pair in near_duplicates(image_hashes, image_hashes) if pair.first < pair.second]
    group_names = [folders.group_of(file.place, groups) for file in kept]
    scores = score_all(bundle.model, decoded.images).score
    return NewImages(
        normal=scores,
        groups=group_names,
        anomalies=(),
        data=Data(
            source=folders.name_of(source),
            normal=NORMAL,
            fingerprint=fingerprint(decoded.images),
            groups=len(set(group_names)),
            unreadable=len(decoded.unreadable),
            excluded=files.excluded,
            near_duplicates={_WITHIN: len(pairs)},
        ),
        skipped=[f"{path}: {reason}" for path, reason in decoded.unreadable],
        remarks=[*files.remarks, *(remark.line("normal") for remark in decoded.remarks)],
        warnings=warnings,
        suspects=most_suspicious(decoded.images, [files.name_of(file) for file in kept], scores),
    )


def from_labels(store: ModelStore, bundle: Bundle, file: Path) -> NewImages:
    """Takes the scores of labelled images that this version, or another version with the same weights, scored.

    Args:
        store: contains the other versions.
        bundle: the version to recalibrate.
        file: labels, as the service writes them.

    Raises:
        TrainingError: the file cannot be read, or contains no label ``normal`` for these versions.
    """
    manifest = bundle.manifest
    try:
        found = labels.read(file)
    except OSError as error:
        raise TrainingError(f"{file} cannot be read: {error.strerror}") from error
    same = _versions_with_same_weights(store, manifest, {label.version for label in found.labels})
    # One label per image, the last one, even if versions with the same weights scored it more than once.
    by_image = {
        label.picture: label for label in found.labels if label.model == manifest.name and label.version in same
    }
    normal, anomalies = (
        [label for label in by_image.values() if label.verdict == verdict] for verdict in ("normal", "anomaly")
    )
    if not normal:
        raise TrainingError(
            f"{file} has no label 'normal' for {manifest.name} {manifest.version} or a version with the same weights; "
            f"it has {len(found.labels):,} labels in total"
        )
    return NewImages(
        normal=[label.score for label in normal],
        groups=None,
        anomalies=[label.score for label in anomalies],
        data=Data(
            source=f"labels in {file.name}",
            normal="labelled normal by operators",
            fingerprint=_fingerprint_of_labels(normal),
            groups=len(normal),
            unreadable=found.unreadable,
            near_duplicates=None,
        ),
        skipped=[f"{found.unreadable:,} lines of {file} that are not valid labels"] if found.unreadable else [],
        caveat=_LABELLED,
    )


def _versions_with_same_weights(store: ModelStore, manifest: Manifest, versions: set[str]) -> set[str]:
    """Those of the versions that have the weights of a manifest, and so give every image the same score."""
    same = {manifest.version}
    for version in versions & set(store.versions(manifest.name)):
        try:
            files = store.manifest(manifest.name, version).files
        except InferenceError:
            continue  # its files are not verified
        if files.get(MODEL_FILE) == manifest.files[MODEL_FILE]:
            same.add(version)
    return same


def _fingerprint_of_labels(used: Sequence[Label]) -> str:
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
    """Publishes a version with the weights of another one and a threshold from new images.

    Args:
        store: where to publish.
        bundle: the version that the weights come from.
        new: scores of new images.
        false_alarm_rate: α of the new threshold.
        guarantee: the kind of guarantee for α.
        key: signs the new version; None: it is not signed.

    Raises:
        TrainingError: there are too few images; the text says how many are needed.
        StoreNotWritable, BundleRejected: publishing failed; the store did not change.
    """
    before = bundle.manifest
    calibration = calibrate(new.normal, new.groups, guarantee, before.training.seed)
    try:
        threshold = calibration.threshold_for(false_alarm_rate, guarantee)
    except UnsupportedFalseAlarmRate as error:
        raise TrainingError(f"{_too_few(new)}: {error}") from error
    draft = before.model_copy(
        update={
            "version": new_version(),
            "created_at": datetime.now(UTC).replace(microsecond=0),
            "threshold": threshold,
            "false_alarm_rate": false_alarm_rate,
            "guarantee": guarantee,
            "promise": calibration.promise(false_alarm_rate, guarantee) + new.caveat,
            "evaluation": _without_rates(before.evaluation),
            "recalibration": Recalibration(
                version=before.version,
                threshold=before.threshold,
                false_alarm_rate=before.false_alarm_rate,
                guarantee=before.guarantee,
                size=before.calibration.size,
                flagged=anomaly_rate(new.normal, before.threshold),
                data=new.data,
            ),
            "calibration": CalibrationRecord.of(calibration),
            "warnings": (*before.warnings, *new.warnings),
        }
    )
    kept = _files_of(store, before, [MODEL_FILE, *(f"report/{name}.png" for name in page.WITHOUT_THRESHOLD)])
    charts = {PurePath(name).stem: content for name, content in kept.items() if name != MODEL_FILE}
    samples = _files_of(store, before, filter(is_sample, before.files))
    files = {MODEL_FILE: kept[MODEL_FILE], **page.write_recalibrated(before, draft, charts, new.suspects), **samples}
    after = draft.model_copy(update={"files": {name: file_record(content) for name, content in files.items()}})
    return Recalibrated(before, after, store.publish(after, files, key))


def _too_few(new: NewImages) -> str:
    images, groups = len(new.normal), new.data.groups
    if groups == images:
        return "too few normal images"
    return f"too few groups, {groups:,} of {images:,} images (--groups none treats every image as its own object)"


def _without_rates(evaluation: Evaluation | None) -> Evaluation | None:
    """The figures that do not depend on the threshold."""
    unknown: dict[str, Any] = {"false_alarm_rate": None, "detection_rate": None, "kinds": {}, "localization": None}
    return evaluation and evaluation.model_copy(update=unknown)


def _files_of(store: ModelStore, manifest: Manifest, names: Iterable[str]) -> dict[str, bytes]:
    """The contents of the named files, as far as the version has them."""
    return {name: store.file(manifest, name) for name in names if name in manifest.files}
