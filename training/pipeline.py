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
from typing import Literal

import torch

from app import __version__
from app.inference import torchscript
from app.inference.bundle import MODEL_FILE, file_record
from app.inference.conformal import Calibration
from app.inference.images import InputSpec, open_picture
from app.inference.manifest import (
    CalibrationRecord,
    Data,
    Golden,
    Loss,
    Manifest,
    Scoring,
    Split,
    Training,
)
from app.inference.rendering import png, to_image
from app.inference.store import ModelStore, new_version
from training import report
from training.autoencoders import DenseAutoencoder, parameter_count
from training.datasets import Dataset, load
from training.evaluation import evaluate, score_all
from training.fitting import Epoch, fit, pick_device
from training.recipes import Recipe
from training.scoring import RULES, ScoredAutoencoder
from training.splitting import Parts, split


@dataclass(frozen=True)
class Run:
    """Everything that decides a run. Equal runs on one machine give equal weights and thresholds."""

    data: str
    normal: tuple[int, ...]
    name: str
    recipe: Recipe
    store: Path
    data_dir: Path
    false_alarm_rate: float
    seed: int
    device: str
    threads: int
    size: tuple[int, int] | None
    mode: Literal["auto", "L", "RGB"]


@dataclass(frozen=True)
class Published:
    """Where the new version lies and what it says of itself."""

    directory: Path
    manifest: Manifest


def train(
    run: Run,
    *,
    on_data: Callable[[Dataset, Parts, torch.device], None] = lambda *_: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Published:
    """Trains, calibrates, evaluates and publishes a new version.

    Raises:
        TrainingError: the data does not allow the run.
        StoreNotWritable, BundleRejected: publishing failed; the store serves what it served.
    """
    torch.set_num_threads(run.threads)
    device = pick_device(run.device)
    data = load(run.data, normal=run.normal, data_dir=run.data_dir, size=run.size, mode=run.mode)
    parts = split(data.groups, run.recipe, false_alarm_rate=run.false_alarm_rate, seed=run.seed)
    on_data(data, parts, device)

    torch.manual_seed(run.seed)
    network = DenseAutoencoder(data.spec.shape, run.recipe.hidden, linear_code=run.recipe.linear_code)
    began = time.perf_counter()
    epochs = fit(
        network,
        data.normal[list(parts.fit)],
        data.normal[list(parts.validation)],
        run.recipe,
        seed=run.seed,
        device=device,
        on_epoch=on_epoch,
    )
    seconds = time.perf_counter() - began

    # From here on, the archive that will be served does the scoring.
    rule = RULES["mse"]
    archive = torchscript.dump(ScoredAutoencoder(network, rule.module()))
    model = torchscript.load(archive)
    held_out = data.normal[list(parts.calibration)]
    calibration = Calibration(score_all(model, held_out).score)
    threshold = calibration.threshold(run.false_alarm_rate)
    test_scores = score_all(model, data.test)

    pictures = report.draw(
        report.Material(
            normal=data.normal[list(parts.fit)],
            epochs=epochs,
            calibration=calibration.scores,
            threshold=threshold,
            false_alarm_rate=run.false_alarm_rate,
            test=data.test,
            test_kinds=data.test_kinds,
            test_scores=test_scores,
        )
    )
    files = {MODEL_FILE: archive, **pictures}
    manifest = Manifest(
        name=run.name,
        version=new_version(),
        created_at=datetime.now(UTC).replace(microsecond=0),
        input=data.spec,
        scoring=Scoring(rule=rule.name, formula=rule.formula),
        threshold=threshold,
        false_alarm_rate=run.false_alarm_rate,
        evaluation=evaluate(test_scores.score, data.test_kinds, threshold),
        training=Training(
            recipe=dataclasses.asdict(run.recipe),
            parameters=parameter_count(network),
            seed=run.seed,
            device=device.type,
            threads=run.threads,
            seconds=round(seconds, 3),
            split=Split(fit=len(parts.fit), validation=parts.validation, calibration=parts.calibration),
            loss=Loss(
                train=tuple(epoch.train_loss for epoch in epochs),
                validation=tuple(e.validation_loss for e in epochs if e.validation_loss is not None),
            ),
        ),
        data=Data(source=data.source, normal=data.normal_label, fingerprint=data.fingerprint),
        libraries=_libraries(),
        files={name: file_record(content) for name, content in files.items()},
        golden=_golden(model, data.spec, held_out),
        calibration=CalibrationRecord(size=len(calibration), scores=calibration.scores),
    )
    return Published(ModelStore(run.store).publish(manifest, files), manifest)


def _golden(model: torchscript.ScoringModel, spec: InputSpec, held_out: torch.Tensor) -> Golden:
    """The calibration picture of median score, as a PNG, with the answers it gets when read back."""
    order = torch.tensor(score_all(model, held_out).score).argsort()
    data = png(to_image(held_out[order[len(order) // 2]]))
    image = open_picture(data, max_pixels=spec.height * spec.width).decode(spec).tensor
    scores = score_all(model, image.unsqueeze(0))
    return Golden(image=base64.b64encode(data).decode(), mse=scores.mse[0], score=scores.score[0])


def _libraries() -> dict[str, str]:
    names = ("torch", "torchvision", "numpy", "pillow", "scikit-learn")
    return {
        "anomaly-service": __version__,
        "python": platform.python_version(),
        **{name: library_version(name) for name in names},
    }
