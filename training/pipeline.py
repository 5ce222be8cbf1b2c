"""A complete training run: prepare, fit, calibrate, evaluate, draw the report, publish."""

import base64
import dataclasses
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from typing import Any

import torch
from torch import nn

from app import __version__
from app.inference.bundles import torchscript
from app.inference.bundles.bundle import MODEL_FILE, file_record
from app.inference.bundles.manifest import (
    CalibrationRecord,
    Data,
    ErrorMap,
    Golden,
    InterestRecord,
    Loss,
    Manifest,
    ScopeRecord,
    Scoring,
    Split,
    Training,
    TrialRecord,
)
from app.inference.bundles.store import ModelStore, new_version
from app.inference.decisions.conformal import calibrate
from app.inference.images.decoding import open_image
from app.inference.images.model_input import InputSpec
from app.inference.images.rendering import png, to_pixels
from training.data.datasets import Dataset
from training.data.images import Images
from training.evaluation.figures import evaluate
from training.evaluation.masks import MaskEvaluation
from training.evaluation.scores import score_all
from training.model.autoencoders import parameter_count
from training.model.fitting import Epoch
from training.model.interest import RegionOfInterest, as_tensor
from training.model.method import Fitted, Method, Progress, R
from training.model.scope import RATE, Scope
from training.preparation import method_for, prepare
from training.reporting import page
from training.reporting.data import ReportData
from training.reporting.samples import sample_images
from training.run import CALIBRATING, DRAWING, FITTING, PUBLISHING, Observer, Prepared, Published, Run
from training.selection.choice import Trial
from training.suspects import most_suspicious


def train(run: Run, observer: Observer | None = None) -> Published:
    """Trains, calibrates, evaluates and publishes a new version.

    Raises:
        TrainingError: the data are not sufficient for the run, or the loss diverged.
        StoreNotWritable, BundleRejected: publishing failed; the store did not change.
    """
    torch.set_num_threads(run.threads)
    observer = observer or Observer()
    run, prepared, trials = prepare(run, observer)
    data, parts = prepared.data, prepared.parts
    ModelStore(run.store).prepare(run.name)

    began = time.perf_counter()
    method = method_for(run, data.spec, data.inside)
    observer.stage(FITTING, method.steps(len(parts.fit), len(parts.folds)))
    fitted, held_out = _fit(method, prepared, Progress(observer.step, observer.epoch))
    network = _within_interest(fitted.network, data)
    seconds = time.perf_counter() - began

    observer.stage(CALIBRATING)
    # Scores are computed with the archive that is published, so they match those of the service.
    archive = torchscript.dump(network)
    model = torchscript.load(archive)
    calibration_images = data.normal.select(parts.calibrating)
    scores = score_all(model, calibration_images, run.threads).score if held_out is None else held_out
    calibration = calibrate(
        scores,
        [data.groups[index] for index in parts.calibrating],
        run.guarantee,
        run.seed,
    )
    threshold = calibration.threshold_for(run.false_alarm_rate, run.guarantee)
    folds = len(parts.folds) or None
    suspects = most_suspicious(calibration_images, [data.normal_name(index) for index in parts.calibrating], scores)
    observer.suspects(suspects)
    masks = MaskEvaluation(data.test_masks, threshold, score_is_maximum=method.score == "maximum")
    test_scores = score_all(model, data.test, run.threads, masks.add)
    draft = Manifest(
        name=run.name,
        version=new_version(),
        created_at=datetime.now(UTC).replace(microsecond=0),
        input=data.spec,
        scoring=Scoring(rule=run.rule.name, formula=run.rule.formula),
        region_of_interest=None if data.inside is None else InterestRecord.of(data.inside),
        error_map=_error_map_record(model, method, calibration_images[:1]),
        scope=_scope_record(fitted.scope, method),
        threshold=threshold,
        false_alarm_rate=run.false_alarm_rate,
        guarantee=run.guarantee,
        promise=calibration.promise(run.false_alarm_rate, run.guarantee, folds),
        evaluation=evaluate(test_scores.score, data.test_kinds, threshold, masks.figures()),
        training=Training(
            recipe=dataclasses.asdict(run.recipe),
            parameters=parameter_count(fitted.network),
            seed=run.seed,
            device=prepared.device.type,
            threads=run.threads,
            seconds=round(seconds, 3),
            split=Split(fit=len(parts.fit), validation=parts.validation, calibration=parts.calibration),
            loss=_loss(fitted.epochs),
            backbone=method.backbone,
            trials=tuple(map(_trial_record, trials)) or None,
        ),
        data=_data_record(prepared),
        libraries=_libraries(),
        files={},
        golden=_golden(model, data.spec, calibration_images, scores),
        calibration=CalibrationRecord.of(calibration, folds),
        warnings=prepared.warnings,
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
        test_masks=data.test_masks,
        score_is_maximum=method.score == "maximum",
        suspects=suspects,
    )
    samples = sample_images(data, run.source.root, parts.calibrating, scores, test_scores.score)
    files = {MODEL_FILE: archive, **page.write(draft, charts), **samples}
    manifest = draft.model_copy(update={"files": {name: file_record(content) for name, content in files.items()}})

    observer.stage(PUBLISHING)
    store = ModelStore(run.store)
    return Published(store.publish(manifest, files, run.sign_key, activate=run.activate), manifest)


def _fit(method: Method[R], prepared: Prepared, progress: Progress) -> tuple[Fitted[R], list[float] | None]:
    """The model, and for cross-calibration the scores of the fit part, by models that have not seen the image."""
    data, parts = prepared.data, prepared.parts
    images = method.represent(data.normal, parts.fit, progress, copies=method.copies)
    if parts.folds:  # the fit part is then all images
        fitted, scores = method.cross_fit(images, [list(fold) for fold in parts.folds], progress)
        return fitted, scores.tolist()
    groups = [data.groups[index] for index in parts.fit]
    validation = method.represent(data.normal, parts.validation, progress) if parts.validation else images[[]]
    return method.fit(images, groups, validation, progress), None


def _within_interest(network: nn.Module, data: Dataset) -> nn.Module:
    if data.inside is None:
        return network
    error_map = network(data.normal[[0]])[3]
    grid = (error_map.shape[2], error_map.shape[3])
    return RegionOfInterest(network, as_tensor(data.inside), grid)


def _error_map_record(model: torchscript.ScoringModel, method: Method[Any], image: torch.Tensor) -> ErrorMap:
    error_map = model(image)[3]
    _, _, height, width = error_map.shape
    return ErrorMap(height=height, width=width, score=method.score)


def _scope_record(scope: Scope, method: Method[Any]) -> ScopeRecord:
    return ScopeRecord(
        statistics="features" if method.backbone else "pixels", limit=scope.limit, largest=scope.largest, rate=RATE
    )


def _loss(epochs: Sequence[Epoch]) -> Loss:
    return Loss(
        train=tuple(epoch.train_loss for epoch in epochs),
        validation=tuple(epoch.validation_loss for epoch in epochs if epoch.validation_loss is not None),
    )


def _trial_record(trial: Trial) -> TrialRecord:
    tried, (height, width) = trial.candidate, trial.candidate.size
    return TrialRecord(
        recipe=tried.recipe.name, rule=tried.rule.name, height=height, width=width, auroc=round(trial.auroc, 4)
    )


def _data_record(prepared: Prepared) -> Data:
    data, duplicates = prepared.data, prepared.near_duplicates
    return Data(
        source=data.source,
        normal=data.normal_label,
        fingerprint=data.fingerprint,
        groups=len(set(data.groups)),
        unreadable=len(data.unreadable),
        excluded=data.excluded,
        near_duplicates=duplicates and {where: len(pairs) for where, pairs in duplicates.items()},
    )


def _golden(model: torchscript.ScoringModel, spec: InputSpec, images: Images, image_scores: Sequence[float]) -> Golden:
    """The image of median score as a PNG file, with the MSE and the score of the decoded file."""
    order = sorted(range(len(images)), key=image_scores.__getitem__)
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
