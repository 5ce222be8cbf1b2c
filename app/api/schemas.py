"""Response bodies: FastAPI serialises them, and the OpenAPI document describes them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, Field

from app.api.telemetry.drift_state import DriftState
from app.inference.bundles.fitness import fitness
from app.inference.bundles.labels import Label
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
    Scoring,
)
from app.inference.decisions.conformal import Guarantee, Verdict, finest_false_alarm_rate, verdict
from app.inference.decisions.drift_test import (
    FALSE_ALARM_PROBABILITY,
    SMALLEST_P_VALUE,
    WINDOW,
    critical_value,
    p_value,
)
from app.inference.decisions.regions import MOST
from app.inference.images.model_input import InputSpec

_QUANTILES = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
# Ten round numbers per decade.
_ROUND_RATES = (
    *(float(f"{digits}e-{places}") for places in range(6, 1, -1) for digits in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)),
    *(0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
)


_LIMITS: Final = (
    "Only scores are compared. Real anomalies also count as a change if they are more than about one image in ten; "
    "labels are needed to distinguish the two. A change that does not affect the scores is not detected."
)


class ProblemBody(BaseModel):
    """Type, title, status and detail of an error."""

    type: str = Field(description="stable identifier of the problem type, a URI")
    title: str
    status: int
    detail: str = Field(description="this occurrence, one sentence")


class RejectedFile(ProblemBody):
    """An uploaded file and why it could not be scored, in a request without any scored image."""

    filename: str | None


class Problem(ProblemBody):
    """A problem document (RFC 9457)."""

    instance: str = Field(description="the request id, as in the X-Request-ID header and in the log")
    errors: list[RejectedFile] | None = Field(None, description="one entry per file if every file was rejected")


class ModelVersion(BaseModel):
    """Name and version of a model."""

    name: str
    version: str


class ImageRegion(BaseModel):
    """A connected area above the threshold, in pixels of the uploaded image as a viewer shows it."""

    box: tuple[int, int, int, int] = Field(description="x and y of its left upper corner, width, height")
    area: float = Field(gt=0, le=1, description="share of the image")
    peak: float = Field(description="the largest value of the map in it, in score units")
    polygon: list[tuple[float, float]] = Field(
        description="the corners (x, y) of its outer boundary, clockwise; holes are filled"
    )


class ScoredImage(BaseModel):
    """An image that was scored."""

    status: Literal["scored"]
    filename: str | None
    mse: float = Field(description="mean squared difference between the model's input and its reconstruction")
    score: float = Field(description="the anomaly score, which is compared with the threshold")
    is_anomaly: bool = Field(description="true exactly if score > threshold")
    verdict: Literal["normal", "anomaly"]
    p_value: float = Field(
        description="(1 + number of calibration scores ≥ score) / (n + 1). If the calibration images come in groups: "
        "(1 + weight of calibration scores ≥ score) / (number of groups + 1); the weights of a group sum to 1"
    )
    warnings: list[str] = Field(description="conversions of the image, and signs that it does not suit the model")
    regions: list[ImageRegion] | None = Field(
        None,
        max_length=MOST,
        description="where the image is anomalous, the strongest first; empty exactly if it is not an anomaly. "
        "Only models with an error map of their own have it",
    )
    id: str | None = Field(None, description="answer id for `POST /feedback`; only if labels are kept")
    input: str | None = Field(None, description="the image as the model receives it, a PNG data URI; only if included")
    reconstruction: str | None = Field(None, description="a PNG data URI; only if included")
    error_map: str | None = Field(None, description="squared error per pixel, a PNG data URI; only if included")
    mask: str | None = Field(
        None,
        description="all regions, white on black, in the image's own proportions, at most 1024 pixels on the longer "
        "side; a PNG data URI; only if included, and only for models with an error map of their own",
    )


class RejectedImage(BaseModel):
    """A file that could not be scored."""

    status: Literal["rejected"]
    filename: str | None
    error: ProblemBody


class ScoreAnswer(BaseModel):
    """The results in upload order, one per image."""

    model: ModelVersion
    threshold: float = Field(
        description="in score units. With `fdr`, it separates the flagged images of this request from the others, and "
        "is of no use for other images"
    )
    false_alarm_rate: float | None = Field(
        description="the rate that the threshold guarantees; null if the request chose the threshold or `fdr`"
    )
    fdr: float | None = Field(None, description="as requested; absent if it was not")
    results: list[Annotated[ScoredImage | RejectedImage, Field(discriminator="status")]]


class KeptLabel(BaseModel):
    """A stored label, together with the service's verdict."""

    model: ModelVersion
    score: float
    said: Verdict = Field(description="the service's verdict")
    verdict: Verdict = Field(description="the operator's verdict")
    labelled_at: datetime
    filename: str | None
    comment: str | None
    operator: str | None
    image: str | None = Field(description="name for `GET /feedback/images/{name}`; null if the image is not stored")

    @classmethod
    def of(cls, label: Label) -> Self:
        """The response for a label."""
        return cls(
            model=ModelVersion(name=label.model, version=label.version),
            score=label.score,
            said=verdict(label.score, label.threshold),
            verdict=label.verdict,
            labelled_at=label.labelled_at,
            filename=label.filename,
            comment=label.comment,
            operator=label.operator,
            image=label.image,
        )


class KeptLabels(BaseModel):
    """The last labels, and what the service stores."""

    kept: bool = Field(description="whether labels are stored (`ANOMALY_FEEDBACK_PATH`)")
    images_kept: bool = Field(description="whether images are stored with them (`ANOMALY_FEEDBACK_IMAGES`)")
    labels: list[KeptLabel] = Field(description="the newest first; of an image only the last by each version")


class RefusedModel(BaseModel):
    """A model whose current version is not served."""

    name: str
    reason: str


class Health(BaseModel):
    """State of the service."""

    status: Literal["ok", "starting", "draining", "unavailable"]
    reason: str | None = Field(None, description="only if the status is not ok")
    model: ModelVersion | None = Field(None, description="the default model; absent if it is not loaded")
    models: list[ModelVersion] = Field(description="the loaded models, at most ANOMALY_MAX_LOADED_MODELS")
    refused: list[RefusedModel] = Field(
        description="models whose current version is not served, and why; the first 50 by name"
    )
    uptime_s: float


class Liveness(BaseModel):
    """The process is running."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether requests can be scored."""

    status: Literal["ready", "starting", "draining", "unavailable"]
    reason: str | None = None


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


class LastWindow(BaseModel):
    """The window that was compared most recently."""

    at: datetime
    statistic: float = Field(
        description="largest log-likelihood ratio of the window against the calibration scores, at least 0"
    )
    limit: float = Field(description="a window with at least this statistic counts as changed")
    p_value: float = Field(
        description=f"probability of a statistic this large without a change; at least {SMALLEST_P_VALUE:g}"
    )
    mean_p_value: float = Field(
        description="mean p-value of the images: about 0.5 without a change, less if their scores are higher"
    )


class DriftAnswer(BaseModel):
    """Whether the scores of recent images are distributed like those of the calibration images."""

    name: str
    version: str
    verdict: Literal["too few pictures yet", "no change seen", "changed"] = Field(
        description="the result for the last window"
    )
    scores: Literal["higher", "lower"] | None = Field(description="direction of the change, if any")
    since: datetime | None = Field(description="time of the first window in the current series of changed windows")
    window: int = Field(description="number of images in a window")
    false_alarm_probability: float = Field(
        description="upper bound on the probability that a window counts as changed without a change, over the draw of "
        "the calibration images and of the window"
    )
    pictures: int = Field(description="images scored since the last window, by all workers")
    windows: int = Field(description="windows compared since this version was first served")
    alarms: int = Field(description="windows that counted as changed")
    last: LastWindow | None
    limits: str = Field(description="what this comparison cannot detect")

    @classmethod
    def of(cls, manifest: Manifest, states: Sequence[DriftState]) -> Self:
        """Combines the states of all workers for a version. Blocking."""
        compared = [(state.last, state.since) for state in states if state.last is not None]
        last, since = max(compared, key=lambda window: window[0].at, default=(None, None))
        size = manifest.calibration.effective_size
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
    """A page of the models in the store."""

    default: str
    models: list[ModelCard]
    refused: list[RefusedModel] = Field(description="models whose current version failed verification")
    total: int = Field(description="number of models in the store, over all pages")
    next: str | None = Field(description="value of `after` for the next page; null on the last page")
