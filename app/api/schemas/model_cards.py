"""Model cards and calibration scores."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from app.inference.bundles.fitness import fitness
from app.inference.bundles.manifest import (
    BackboneRecord,
    Data,
    ErrorMap,
    Evaluation,
    FileRecord,
    InterestRecord,
    Loss,
    Manifest,
    Recalibration,
    ScopeRecord,
    Scoring,
)
from app.inference.decisions.conformal import Guarantee, finest_false_alarm_rate
from app.inference.images.model_input import InputSpec

_QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
# Ten round numbers per decade.
_ROUND_RATES = (
    *(float(f"{digits}e-{places}") for places in range(6, 1, -1) for digits in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)),
    *(0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
)


class RefusedModel(BaseModel):
    """A model whose current version is not served."""

    name: str
    reason: str


class CalibrationSummary(BaseModel):
    """Summary of the calibration scores."""

    size: int = Field(description="number of calibration images")
    groups: int = Field(
        description="number of their groups, which the guarantee counts; equals `size` if every image is its own group"
    )
    finest_false_alarm_rate: float = Field(description="the smallest rate that a request may choose")
    error_quantiles: dict[str, float] = Field(description="quantiles of the calibration scores, by level")


class TrainingSummary(BaseModel):
    """How the weights were trained."""

    recipe: dict[str, str | bool | int | float | tuple[int, ...]]
    parameters: int
    seed: int
    device: str
    seconds: float
    fit_images: int
    validation_images: int
    loss: Loss
    backbone: BackboneRecord | None = Field(None, description="the pretrained network, if the model contains one")


class ModelCard(BaseModel):
    """Model card: the manifest of a version without its long lists."""

    name: str
    version: str
    created_at: datetime
    input: InputSpec
    scoring: Scoring
    error_map: ErrorMap | None = Field(None, description="grid of the model's error map; null for schema version 1")
    scope: ScopeRecord | None = Field(
        None, description="the limit beyond which an image is out of scope; null if the model has no such check"
    )
    region_of_interest: InterestRecord | None = Field(
        None, description="the part of the input that counts, as a mask; null if all of it does"
    )
    threshold: float
    false_alarm_rate: float
    guarantee: Guarantee
    promise: str
    calibration: CalibrationSummary
    evaluation: Evaluation | None
    fitness: str = Field(
        description="whether the model is fit for use, in plain words: what it finds of its test anomalies at its "
        "threshold, what it misses, what would help and what it cannot know"
    )
    training: TrainingSummary
    data: Data
    recalibration: Recalibration | None = Field(
        None,
        description="only if the threshold was recalibrated: from which data, and the previous threshold. `training` "
        "and `data` still describe the weights; `evaluation` no longer has the rates at the previous threshold",
    )
    warnings: tuple[str, ...] = Field(
        (), description="why the model should not be trusted: its images were not suitable, and the user insisted"
    )
    files: dict[str, FileRecord] = Field(description="size and SHA-256 of each file of the version")
    libraries: dict[str, str] = Field(description="library versions that trained the model")

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The model card for a manifest."""
        calibration, training = manifest.calibration, manifest.training
        scores, groups = calibration.scores, calibration.effective_size
        return cls(
            name=manifest.name,
            version=manifest.version,
            created_at=manifest.created_at,
            input=manifest.input,
            scoring=manifest.scoring,
            error_map=manifest.error_map,
            scope=manifest.scope,
            region_of_interest=manifest.region_of_interest,
            threshold=manifest.threshold,
            false_alarm_rate=manifest.false_alarm_rate,
            guarantee=manifest.guarantee,
            promise=manifest.promise,
            calibration=CalibrationSummary(
                size=calibration.size,
                groups=groups,
                finest_false_alarm_rate=finest_false_alarm_rate(groups, manifest.guarantee),
                error_quantiles={f"{level:g}": scores[round(level * (len(scores) - 1))] for level in _QUANTILES},
            ),
            evaluation=manifest.evaluation,
            fitness=fitness(manifest),
            training=TrainingSummary(
                recipe=training.recipe,
                parameters=training.parameters,
                seed=training.seed,
                device=training.device,
                seconds=training.seconds,
                fit_images=training.split.fit,
                validation_images=len(training.split.validation),
                loss=training.loss,
                backbone=training.backbone,
            ),
            data=manifest.data,
            recalibration=manifest.recalibration,
            warnings=manifest.warnings,
            files=manifest.files,
            libraries=manifest.libraries,
        )


class Stop(BaseModel):
    """A false-alarm rate and its threshold."""

    false_alarm_rate: float = Field(description="as in the query of `POST /score`")
    threshold: float = Field(description="at this rate, images with a higher score are anomalies")


class CalibrationScores(BaseModel):
    """Calibration scores and thresholds. With them a client can change the false-alarm rate without scoring again."""

    name: str
    version: str
    guarantee: Guarantee
    scores: tuple[float, ...] = Field(description="scores of the calibration images, ascending")
    groups: tuple[int, ...] | None = Field(
        None, description="number of the group of each score, in the same order; null if every image is its own group"
    )
    stops: list[Stop] = Field(description="from the smallest supported rate to 0.5, ascending")

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The calibration scores of a manifest, and thresholds for round false-alarm rates."""
        calibration = manifest.calibration.restore()
        finest = finest_false_alarm_rate(calibration.effective_size, manifest.guarantee)
        rates = (manifest.false_alarm_rate, finest, *(rate for rate in _ROUND_RATES if rate > finest))
        by_threshold: dict[float, float] = {}
        for rate in rates:  # several rates can share a threshold: the calibrated and the finest one take precedence
            by_threshold.setdefault(calibration.threshold_for(rate, manifest.guarantee), rate)
        return cls(
            name=manifest.name,
            version=manifest.version,
            guarantee=manifest.guarantee,
            scores=calibration.scores,
            groups=calibration.groups,
            stops=[
                Stop(false_alarm_rate=rate, threshold=threshold)
                for threshold, rate in sorted(by_threshold.items(), reverse=True)
            ],
        )


class Models(BaseModel):
    """A page of the models in the store."""

    default: str
    models: list[ModelCard]
    refused: list[RefusedModel] = Field(description="models whose current version failed verification")
    total: int = Field(description="number of models in the store, over all pages")
    next: str | None = Field(description="value of `after` for the next page; null on the last page")
