"""A complete training run: read, split, fit, calibrate, evaluate, draw the report, publish."""

import base64
import dataclasses
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from app import __version__
from app.inference.bundles import torchscript
from app.inference.bundles.bundle import MODEL_FILE, file_record
from app.inference.bundles.manifest import (
    BackboneRecord,
    CalibrationRecord,
    Data,
    ErrorMap,
    Golden,
    Loss,
    Manifest,
    Scoring,
    Split,
    Training,
)
from app.inference.bundles.signing import SigningKey
from app.inference.bundles.store import ModelStore, new_version
from app.inference.decisions.conformal import Calibration, Guarantee, promise
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from app.inference.images.rendering import png, to_pixels
from training import report
from training.data.datasets import Dataset, Source, load
from training.data.duplicates import hashes, near_duplicates
from training.data.images import Images
from training.data.splitting import Partition, split
from training.evaluation import evaluate, score_all
from training.model.autoencoders import build, parameter_count
from training.model.fitting import Epoch, fit, pick_device
from training.model.recipes import Recipe
from training.model.scoring_rules import ScoredAutoencoder, ScoringRule
from training.report import ReportData

READING: Final = "reading the images"
FITTING: Final = "fitting"
CALIBRATING: Final = "calibrating and evaluating"
DRAWING: Final = "drawing the report"
PUBLISHING: Final = "publishing"


@dataclass(frozen=True)
class Run:
    """All settings of a run. On one machine, equal runs give equal weights and thresholds."""

    source: Source
    name: str
    recipe: Recipe
    rule: ScoringRule
    store: Path
    false_alarm_rate: float
    guarantee: Guarantee
    seed: int
    device: str
    threads: int
    weights: Path | None = None
    sign_key: SigningKey | None = None


@dataclass(frozen=True)
class Prepared:
    """The data of a run and their split, before fitting.

    Attributes:
        data: all images.
        parts: the split of the normal images.
        device: where the network will be fitted.
        near_duplicates: pairs of files that look alike, by the two parts that they are in; None for built-in sets.
    """

    data: Dataset
    parts: Partition
    device: torch.device
    near_duplicates: dict[str, list[tuple[str, str]]] | None


@dataclass(frozen=True)
class Published:
    """A new version: its folder and its manifest."""

    directory: Path
    manifest: Manifest


class Observer:
    """Callbacks that follow a run. These do nothing; subclasses override what they need."""

    def stage(self, name: str) -> None:
        """A stage of the run begins."""

    def read(self, data: Dataset) -> None:
        """The images were read. Called before the check whether there are enough of them."""

    def prepared(self, prepared: Prepared) -> None:
        """The images were split."""

    def step(self, images: int) -> None:
        """An optimizer step over this many images ended."""

    def epoch(self, epoch: Epoch) -> None:
        """A pass over all images ended."""


@dataclass(frozen=True)
class _Fitted:
    """A fitted network, its epochs, and the wall time in seconds."""

    network: nn.Module
    epochs: Sequence[Epoch]
    seconds: float
    backbone: BackboneRecord | None = None


def train(run: Run, observer: Observer | None = None) -> Published:
    """Trains, calibrates, evaluates and publishes a new version.

    Raises:
        TrainingError: the data are not sufficient for the run, or the loss diverged.
        StoreNotWritable, BundleRejected: publishing failed; the store did not change.
    """
    torch.set_num_threads(run.threads)
    observer = observer or Observer()
    prepared = prepare(run, observer)
    data, parts = prepared.data, prepared.parts
    ModelStore(run.store).prepare(run.name)

    observer.stage(FITTING)
    fitted = _fit(run, prepared, observer)

    observer.stage(CALIBRATING)
    # Scores are computed with the archive that is published, so they match those of the service.
    archive = torchscript.dump(fitted.network)
    model = torchscript.load(archive)
    calibration_images = data.normal.select(parts.calibration)
    calibration = Calibration(score_all(model, calibration_images).score)
    threshold = calibration.threshold_for(run.false_alarm_rate, run.guarantee)
    test_scores = score_all(model, data.test)
    draft = Manifest(
        name=run.name,
        version=new_version(),
        created_at=datetime.now(UTC).replace(microsecond=0),
        input=data.spec,
        scoring=Scoring(rule=run.rule.name, formula=run.rule.formula),
        error_map=_error_map_record(model, run, calibration_images),
        threshold=threshold,
        false_alarm_rate=run.false_alarm_rate,
        guarantee=run.guarantee,
        promise=promise(run.false_alarm_rate, run.guarantee, len(calibration)),
        evaluation=evaluate(test_scores.score, data.test_kinds, threshold),
        training=_training_record(run, prepared, fitted),
        data=_data_record(prepared),
        libraries=_libraries(),
        files={},
        golden=_golden(model, data.spec, calibration_images),
        calibration=CalibrationRecord(size=len(calibration), scores=calibration.scores),
    )

    observer.stage(DRAWING)
    charts = ReportData(
        model=model,
        normal=data.normal.select(parts.fit),
        epochs=fitted.epochs,
        calibration=calibration.scores,
        threshold=threshold,
        false_alarm_rate=run.false_alarm_rate,
        test=data.test,
        test_kinds=data.test_kinds,
        test_scores=test_scores,
        score_is_maximum=draft.error_map is not None and draft.error_map.score == "maximum",
    )
    files = {MODEL_FILE: archive, **report.write(draft, charts)}
    manifest = draft.model_copy(update={"files": {name: file_record(content) for name, content in files.items()}})

    observer.stage(PUBLISHING)
    return Published(ModelStore(run.store).publish(manifest, files, run.sign_key), manifest)


def prepare(run: Run, observer: Observer) -> Prepared:
    """Reads and splits the images, and rejects unsuitable data before the fitting starts.

    Raises:
        TrainingError: there are too few images for fitting or for calibration.
    """
    observer.stage(READING)
    data = load(run.source, folder_size=run.recipe.folder_size)
    observer.read(data)
    parts = split(
        data.groups, run.recipe, false_alarm_rate=run.false_alarm_rate, guarantee=run.guarantee, seed=run.seed
    )
    prepared = Prepared(data, parts, pick_device(run.device), _find_near_duplicates(data, parts))
    observer.prepared(prepared)
    return prepared


def fit_network(
    recipe: Recipe,
    data: Dataset,
    parts: Partition,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_step: Callable[[int], None] = lambda _: None,
) -> tuple[nn.Module, list[Epoch]]:
    """Builds the recipe's network and fits it on the fit part; the result is on the CPU, in evaluation mode."""
    torch.manual_seed(seed)
    network = build(recipe, data.spec.shape, len(parts.fit))
    images, validation = data.normal[list(parts.fit)], data.normal[list(parts.validation)]
    epochs = fit(network, images, validation, recipe, seed=seed, device=device, on_epoch=on_epoch, on_step=on_step)
    return network, epochs


def _fit(run: Run, prepared: Prepared, observer: Observer) -> _Fitted:
    began = time.perf_counter()
    data, fit_part = prepared.data, list(prepared.parts.fit)
    if run.recipe.network == "features":
        from training.features.fitting import fit_features  # noqa: PLC0415  timm takes seconds to import

        fitted = fit_features(
            run.recipe,
            data.normal.select(fit_part),
            [data.groups[index] for index in fit_part],
            weights=run.weights,
            seed=run.seed,
            on_step=observer.step,
        )
        of = fitted.backbone
        record = BackboneRecord(name=of.name, licence=of.licence, sha256=of.sha256)
        return _Fitted(fitted.network, [], time.perf_counter() - began, record)
    network, epochs = fit_network(
        run.recipe,
        prepared.data,
        prepared.parts,
        seed=run.seed,
        device=prepared.device,
        on_epoch=observer.epoch,
        on_step=observer.step,
    )
    return _Fitted(ScoredAutoencoder(network, run.rule.module()), epochs, time.perf_counter() - began)


def _error_map_record(model: torchscript.ScoringModel, run: Run, images: Images) -> ErrorMap:
    *_, error_map = model(images[:1])
    _, _, height, width = error_map.shape
    return ErrorMap(height=height, width=width, score="maximum" if run.recipe.network == "features" else "rule")


def _training_record(run: Run, prepared: Prepared, fitted: _Fitted) -> Training:
    parts, epochs = prepared.parts, fitted.epochs
    return Training(
        recipe=dataclasses.asdict(run.recipe),
        parameters=parameter_count(fitted.network),
        seed=run.seed,
        device=prepared.device.type,
        threads=run.threads,
        seconds=round(fitted.seconds, 3),
        split=Split(fit=len(parts.fit), validation=parts.validation, calibration=parts.calibration),
        loss=Loss(
            train=tuple(epoch.train_loss for epoch in epochs),
            validation=tuple(epoch.validation_loss for epoch in epochs if epoch.validation_loss is not None),
        ),
        backbone=fitted.backbone,
    )


def _data_record(prepared: Prepared) -> Data:
    data, duplicates = prepared.data, prepared.near_duplicates
    return Data(
        source=data.source,
        normal=data.normal_label,
        fingerprint=data.fingerprint,
        groups=len(set(data.groups)),
        unreadable=len(data.unreadable),
        near_duplicates=duplicates and {where: len(pairs) for where, pairs in duplicates.items()},
    )


def _find_near_duplicates(data: Dataset, parts: Partition) -> dict[str, list[tuple[str, str]]] | None:
    if not data.normal_files:
        return None
    hashes_of_normal = hashes(data.normal)
    of_part = {
        "fit": _files_and_hashes(data.normal_files, hashes_of_normal, parts.fit),
        "calibration": _files_and_hashes(data.normal_files, hashes_of_normal, parts.calibration),
        "test": (data.test_files, hashes(data.test)),
    }
    found = {}
    for one, other in combinations(of_part, 2):
        (files, hashes_of_one), (other_files, hashes_of_other) = of_part[one], of_part[other]
        pairs = near_duplicates(hashes_of_one, hashes_of_other)
        found[f"{one} and {other}"] = [(files[pair.first], other_files[pair.second]) for pair in pairs]
    return found


def _files_and_hashes(
    files: Sequence[str], file_hashes: npt.NDArray[np.uint8], part: Sequence[int]
) -> tuple[Sequence[str], npt.NDArray[np.uint8]]:
    return [files[index] for index in part], file_hashes[list(part)]


def _golden(model: torchscript.ScoringModel, spec: InputSpec, images: Images) -> Golden:
    """The image of median score as a PNG file, with the MSE and the score of the decoded file."""
    order = torch.tensor(score_all(model, images).score).argsort().tolist()
    data = png(to_pixels(images[order[len(order) // 2]]))
    image = open_image(data, max_pixels=spec.height * spec.width).decode(spec).tensor
    scores = score_all(model, image.unsqueeze(0))
    return Golden(image=base64.b64encode(data).decode(), mse=scores.mse[0], score=scores.score[0])


def _libraries() -> dict[str, str]:
    names = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "imagehash")
    return {
        "anomaly-service": __version__,
        "python": platform.python_version(),
        **{name: library_version(name) for name in names},
    }
