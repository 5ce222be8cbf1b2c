"""A training run from top to bottom: read, split, fit, calibrate, evaluate, draw, publish."""

import base64
import dataclasses
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Final

import torch
from torch import nn

from app import __version__
from app.inference.bundles import torchscript
from app.inference.bundles.bundle import MODEL_FILE, file_record
from app.inference.bundles.manifest import (
    CalibrationRecord,
    Data,
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
from training.data.splitting import Partition, split
from training.evaluation import evaluate, score_all
from training.model.autoencoders import build, parameter_count
from training.model.fitting import Epoch, fit, pick_device
from training.model.recipes import Recipe
from training.model.scoring_rules import ScoredAutoencoder, ScoringRule
from training.report import ReportData

READING: Final = "reading the images"
FITTING: Final = "fitting"
PUBLISHING: Final = "publishing"


@dataclass(frozen=True)
class Run:
    """Everything that decides a run. Equal runs on one machine give equal weights and thresholds."""

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
    sign_key: SigningKey | None = None


@dataclass(frozen=True)
class Prepared:
    """Data and split of a run, before anything is learned.

    Attributes:
        data: all images.
        parts: which normal image serves what.
        device: where the network will be fitted.
        near_duplicates: pairs that look alike, by the two parts they lie in; None for the built-in sets.
    """

    data: Dataset
    parts: Partition
    device: torch.device
    near_duplicates: dict[str, list[tuple[str, str]]] | None


@dataclass(frozen=True)
class Published:
    """Where the new version lies and what it says of itself."""

    directory: Path
    manifest: Manifest


class Observer:
    """Follows a run, for those who wait; a subclass says what it wants to know."""

    def stage(self, name: str) -> None:
        """What begins now."""

    def read(self, data: Dataset) -> None:
        """What there is to learn from, before anything is refused for being too little."""

    def prepared(self, prepared: Prepared) -> None:
        """How it was split."""

    def step(self, images: int) -> None:
        """So many more images were fitted on."""

    def epoch(self, epoch: Epoch) -> None:
        """All images were fitted on once more."""


def train(run: Run, observer: Observer | None = None) -> Published:
    """Trains, calibrates, evaluates and publishes a new version.

    Raises:
        TrainingError: the data does not allow the run.
        StoreNotWritable, BundleRejected: publishing failed; the store serves what it served.
    """
    torch.set_num_threads(run.threads)
    observer = observer or Observer()
    prepared = prepare(run, observer)
    data, parts = prepared.data, prepared.parts
    ModelStore(run.store).prepare(run.name)

    observer.stage(FITTING)
    began = time.perf_counter()
    network, epochs = fit_network(
        run.recipe,
        data,
        parts,
        seed=run.seed,
        device=prepared.device,
        on_epoch=observer.epoch,
        on_step=observer.step,
    )
    seconds = time.perf_counter() - began

    observer.stage("calibrating and evaluating")
    # From here on, the archive that will be served does the scoring.
    archive = torchscript.dump(ScoredAutoencoder(network, run.rule.module()))
    model = torchscript.load(archive)
    held_out = data.normal[list(parts.calibration)]
    calibration = Calibration(score_all(model, held_out).score)
    threshold = calibration.threshold_for(run.false_alarm_rate, run.guarantee)
    test_scores = score_all(model, data.test)

    training = Training(
        recipe=dataclasses.asdict(run.recipe),
        parameters=parameter_count(network),
        seed=run.seed,
        device=prepared.device.type,
        threads=run.threads,
        seconds=round(seconds, 3),
        split=Split(fit=len(parts.fit), validation=parts.validation, calibration=parts.calibration),
        loss=Loss(
            train=tuple(epoch.train_loss for epoch in epochs),
            validation=tuple(e.validation_loss for e in epochs if e.validation_loss is not None),
        ),
    )
    duplicates = prepared.near_duplicates
    draft = Manifest(
        name=run.name,
        version=new_version(),
        created_at=datetime.now(UTC).replace(microsecond=0),
        input=data.spec,
        scoring=Scoring(rule=run.rule.name, formula=run.rule.formula),
        threshold=threshold,
        false_alarm_rate=run.false_alarm_rate,
        guarantee=run.guarantee,
        promise=promise(run.false_alarm_rate, run.guarantee, len(calibration)),
        evaluation=evaluate(test_scores.score, data.test_kinds, threshold),
        training=training,
        data=Data(
            source=data.source,
            normal=data.normal_label,
            fingerprint=data.fingerprint,
            groups=len(set(data.groups)),
            unreadable=len(data.unreadable),
            near_duplicates=duplicates and {where: len(pairs) for where, pairs in duplicates.items()},
        ),
        libraries=_libraries(),
        files={},
        golden=_golden(model, data.spec, held_out),
        calibration=CalibrationRecord(size=len(calibration), scores=calibration.scores),
    )
    observer.stage("drawing the report")
    material = ReportData(
        normal=data.normal[list(parts.fit)],
        epochs=epochs,
        calibration=calibration.scores,
        threshold=threshold,
        false_alarm_rate=run.false_alarm_rate,
        test=data.test,
        test_kinds=data.test_kinds,
        test_scores=test_scores,
    )
    files = {MODEL_FILE: archive, **report.write(draft, material)}
    manifest = draft.model_copy(update={"files": {name: file_record(content) for name, content in files.items()}})
    observer.stage(PUBLISHING)
    return Published(ModelStore(run.store).publish(manifest, files, run.sign_key), manifest)


def prepare(run: Run, observer: Observer) -> Prepared:
    """Reads and splits; everything that can be refused before training is refused here.

    Raises:
        TrainingError: there is too little to learn from or to calibrate with.
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
    """Builds the recipe's network and fits it on the fit part."""
    torch.manual_seed(seed)
    network = build(recipe, data.spec.shape, len(parts.fit))
    images, validation = data.normal[list(parts.fit)], data.normal[list(parts.validation)]
    epochs = fit(network, images, validation, recipe, seed=seed, device=device, on_epoch=on_epoch, on_step=on_step)
    return network, epochs


def _find_near_duplicates(data: Dataset, parts: Partition) -> dict[str, list[tuple[str, str]]] | None:
    if not data.normal_files:
        return None
    normal, test = hashes(data.normal), hashes(data.test)
    fit_files, calibration_files = (
        [data.normal_files[index] for index in part] for part in (parts.fit, parts.calibration)
    )
    fit_hashes, calibration_hashes = normal[list(parts.fit)], normal[list(parts.calibration)]
    sides = {
        "fit and calibration": (fit_hashes, fit_files, calibration_hashes, calibration_files),
        "fit and test": (fit_hashes, fit_files, test, data.test_files),
        "calibration and test": (calibration_hashes, calibration_files, test, data.test_files),
    }
    return {
        where: [(one_files[pair.first], other_files[pair.second]) for pair in near_duplicates(one, other)]
        for where, (one, one_files, other, other_files) in sides.items()
    }


def _golden(model: torchscript.ScoringModel, spec: InputSpec, held_out: torch.Tensor) -> Golden:
    """The calibration image of median score, as a PNG, with the answers it gets when read back."""
    order = torch.tensor(score_all(model, held_out).score).argsort()
    data = png(to_pixels(held_out[order[len(order) // 2]]))
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
