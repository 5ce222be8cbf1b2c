"""The shapes of answers, for the OpenAPI document and for typed clients."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, Field

from app.api.telemetry.drift_state import DriftState
from app.inference.bundles.labels import Label
from app.inference.bundles.manifest import Data, Evaluation, FileRecord, Loss, Manifest, Recalibration, Scoring
from app.inference.decisions.conformal import Calibration, Guarantee, Verdict, finest_false_alarm_rate, verdict
from app.inference.decisions.drift_test import (
    FALSE_ALARM_PROBABILITY,
    SMALLEST_P_VALUE,
    WINDOW,
    critical_value,
    p_value,
)
from app.inference.images.model_input import InputSpec

_QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
# Ten steps a decade that people know as round numbers.
_TRIED_RATES = (
    *(float(f"{digits}e-{places}") for places in range(6, 1, -1) for digits in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)),
    *(0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
)


_LIMITS: Final = (
    "Only scores are compared. True anomalies look like a change where they are more than about one image in ten; "
    "labels would tell the two apart. A change that leaves the scores as they were is not seen."
)


class ProblemBody(BaseModel):
    """What went wrong, without the request's id."""

    type: str = Field(description="stable identifier of the sort of problem, a URI")
    title: str
    status: int
    detail: str = Field(description="this occurrence, in one sentence")


class RejectedFile(ProblemBody):
    """One file of a request of which none could be scored."""

    filename: str | None


class Problem(ProblemBody):
    """A problem document, RFC 9457."""

    instance: str = Field(description="the request's id, as in the X-Request-ID header and in the log")
    errors: list[RejectedFile] | None = Field(None, description="one per file, when every file was refused")


class ModelVersion(BaseModel):
    """Which model, in which version."""

    name: str
    version: str


class ScoredImage(BaseModel):
    """One image with its verdict."""

    status: Literal["scored"]
    filename: str | None
    mse: float = Field(description="mean squared difference between the model's input and its reconstruction")
    score: float = Field(description="the error that the verdict is decided on")
    is_anomaly: bool = Field(description="exactly: score > threshold")
    verdict: Literal["normal", "anomaly"]
    p_value: float = Field(description="(1 + number of calibration scores ≥ score) / (n + 1)")
    warnings: list[str] = Field(description="what was done to the image or looks wrong")
    id: str | None = Field(None, description="for `POST /feedback`, where labels are kept")
    input: str | None = Field(None, description="what the model saw, PNG as a data URI, if included")
    reconstruction: str | None = Field(None, description="PNG as a data URI, if included")
    error_map: str | None = Field(None, description="squared error per pixel, PNG as a data URI, if included")


class RejectedImage(BaseModel):
    """One file that could not be scored."""

    status: Literal["rejected"]
    filename: str | None
    error: ProblemBody


class ScoreAnswer(BaseModel):
    """One entry per uploaded image, in upload order."""

    model: ModelVersion
    threshold: float
    false_alarm_rate: float = Field(description="the rate that the threshold guarantees")
    results: list[Annotated[ScoredImage | RejectedImage, Field(discriminator="status")]]


class KeptLabel(BaseModel):
    """A label as it was kept, beside what the service had said."""

    model: ModelVersion
    score: float
    said: Verdict = Field(description="the service's verdict")
    verdict: Verdict = Field(description="the operator's")
    labelled_at: datetime

    @classmethod
    def of(cls, label: Label) -> Self:
        """What is told of a label."""
        return cls(
            model=ModelVersion(name=label.model, version=label.version),
            score=label.score,
            said=verdict(label.score, label.threshold),
            verdict=label.verdict,
            labelled_at=label.labelled_at,
        )


class RefusedModel(BaseModel):
    """A model whose current version is not the one that serves."""

    name: str
    reason: str


class Health(BaseModel):
    """The service as it is now."""

    status: Literal["ok", "starting", "draining", "unavailable"]
    reason: str | None = Field(None, description="why it is not ok")
    model: ModelVersion | None = Field(None, description="the default model, unless it is not in memory")
    models: list[ModelVersion] = Field(description="the models in memory, at most ANOMALY_MAX_LOADED_MODELS")
    refused: list[RefusedModel] = Field(description="new versions that failed verification, the first 50 by name")
    uptime_s: float


class Liveness(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether requests can be scored."""

    status: Literal["ready", "starting", "draining", "unavailable"]
    reason: str | None = None


class CalibrationSummary(BaseModel):
    """The calibration scores in short."""

    size: int
    finest_false_alarm_rate: float = Field(description="what a request may ask for at the least")
    error_quantiles: dict[str, float] = Field(description="quantile of the calibration scores by its level")


class TrainingSummary(BaseModel):
    """How the weights came to be."""

    recipe: dict[str, str | bool | int | float | tuple[int, ...]]
    parameters: int
    seed: int
    device: str
    seconds: float
    fit_images: int
    validation_images: int
    loss: Loss


class ModelCard(BaseModel):
    """All that is known of a version, without the bulk."""

    name: str
    version: str
    created_at: datetime
    input: InputSpec
    scoring: Scoring
    threshold: float
    false_alarm_rate: float
    guarantee: Guarantee
    promise: str
    calibration: CalibrationSummary
    evaluation: Evaluation | None
    training: TrainingSummary
    data: Data
    recalibration: Recalibration | None = Field(
        None,
        description="where the threshold was set anew: by what, and what it was; `training` and `data` tell of the "
        "weights, and rates at the old threshold are gone from `evaluation`",
    )
    files: dict[str, FileRecord] = Field(description="size and SHA-256 of every file of the version")
    libraries: dict[str, str] = Field(description="versions that made it")

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The card of a manifest."""
        scores = Calibration(manifest.calibration.scores).scores
        training = manifest.training
        return cls(
            name=manifest.name,
            version=manifest.version,
            created_at=manifest.created_at,
            input=manifest.input,
            scoring=manifest.scoring,
            threshold=manifest.threshold,
            false_alarm_rate=manifest.false_alarm_rate,
            guarantee=manifest.guarantee,
            promise=manifest.promise,
            calibration=CalibrationSummary(
                size=len(scores),
                finest_false_alarm_rate=finest_false_alarm_rate(len(scores), manifest.guarantee),
                error_quantiles={f"{level:g}": scores[round(level * (len(scores) - 1))] for level in _QUANTILES},
            ),
            evaluation=manifest.evaluation,
            training=TrainingSummary(
                recipe=training.recipe,
                parameters=training.parameters,
                seed=training.seed,
                device=training.device,
                seconds=training.seconds,
                fit_images=training.split.fit,
                validation_images=len(training.split.validation),
                loss=training.loss,
            ),
            data=manifest.data,
            recalibration=manifest.recalibration,
            files=manifest.files,
            libraries=manifest.libraries,
        )


class Stop(BaseModel):
    """One setting of the sensitivity."""

    false_alarm_rate: float = Field(description="as `/score` takes it")
    threshold: float = Field(description="above it an image is an anomaly at that rate")


class CalibrationScores(BaseModel):
    """What decides: enough to draw the histogram and to decide anew at another sensitivity without scoring again."""

    name: str
    version: str
    guarantee: Guarantee
    scores: tuple[float, ...] = Field(description="of the calibration images, ascending")
    stops: list[Stop] = Field(description="from the finest rate that the scores support to a half, ascending")

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The calibration of a manifest, with the threshold of each rate that people may want to try."""
        calibration = Calibration(manifest.calibration.scores)
        finest = finest_false_alarm_rate(len(calibration), manifest.guarantee)
        tried = (manifest.false_alarm_rate, finest, *(rate for rate in _TRIED_RATES if rate > finest))
        by_threshold: dict[float, float] = {}
        for rate in tried:  # of rates that give the same threshold the first stays: the calibrated one, or the finest
            by_threshold.setdefault(calibration.threshold_for(rate, manifest.guarantee), rate)
        return cls(
            name=manifest.name,
            version=manifest.version,
            guarantee=manifest.guarantee,
            scores=calibration.scores,
            stops=[
                Stop(false_alarm_rate=rate, threshold=threshold)
                for threshold, rate in sorted(by_threshold.items(), reverse=True)
            ],
        )


class LastWindow(BaseModel):
    """The window that was compared last."""

    at: datetime
    statistic: float = Field(description="largest log-likelihood ratio of window against calibration, from 0")
    limit: float = Field(description="from here on a window counts as changed")
    p_value: float = Field(
        description=f"how likely so large a statistic is without a change; at least {SMALLEST_P_VALUE:g}"
    )
    mean_p_value: float = Field(description="of its images; about 0.5 while nothing changes, less: higher scores")


class DriftAnswer(BaseModel):
    """Whether images still look like the calibration images, by their scores."""

    name: str
    version: str
    verdict: Literal["too few pictures yet", "no change seen", "changed"] = Field(description="of the last window")
    scores: Literal["higher", "lower"] | None = Field(description="what has become of them, if they have changed")
    since: datetime | None = Field(description="the first of the changed windows, if the last is one")
    window: int = Field(description="images that are compared at a time")
    false_alarm_probability: float = Field(
        description="that a window counts as changed while nothing changes: at most this, over the draw of the "
        "calibration images and of the window"
    )
    pictures: int = Field(description="scored since the last window, by all workers")
    windows: int = Field(description="compared since this version began to serve")
    alarms: int = Field(description="of them counted as changed")
    last: LastWindow | None
    limits: str = Field(description="what cannot be known from scores")

    @classmethod
    def of(cls, manifest: Manifest, states: Sequence[DriftState]) -> Self:
        """What the workers have seen of a version, as one. Blocks."""
        judged = [(state.last, state.since) for state in states if state.last is not None]
        last, since = max(judged, key=lambda window: window[0].at, default=(None, None))
        size = manifest.calibration.size
        return cls(
            name=manifest.name,
            version=manifest.version,
            verdict="too few pictures yet" if last is None else "changed" if last.changed else "no change seen",
            scores=None if last is None or not last.changed else "higher" if last.higher else "lower",
            since=since,
            window=WINDOW,
            false_alarm_probability=FALSE_ALARM_PROBABILITY,
            pictures=sum(len(state.ranks) for state in states),
            windows=sum(state.windows for state in states),
            alarms=sum(state.alarms for state in states),
            last=None
            if last is None
            else LastWindow(
                at=last.at,
                statistic=last.statistic,
                limit=critical_value(WINDOW, size),
                p_value=p_value(last.statistic, WINDOW, size),
                mean_p_value=last.mean_p_value,
            ),
            limits=_LIMITS,
        )


class Models(BaseModel):
    """A page of the store."""

    default: str
    models: list[ModelCard]
    refused: list[RefusedModel] = Field(description="models whose current version failed verification")
    total: int = Field(description="names in the store, on all pages")
    next: str | None = Field(description="what `after` must be for the next page; null on the last")
