"""What the service answers, as frozen dataclasses. Fields that a newer service adds are passed over."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

Document = Mapping[str, Any]

_DATA_URI: Final = "data:image/png;base64,"


@dataclass(frozen=True)
class ModelVersion:
    """Which model, in which version."""

    name: str
    version: str

    @classmethod
    def parse(cls, document: Document) -> Self:
        """From ``{"name", "version"}``."""
        return cls(document["name"], document["version"])


@dataclass(frozen=True)
class Refusal:
    """Why a file was not scored."""

    type: str
    title: str
    status: int
    detail: str

    @classmethod
    def parse(cls, document: Document) -> Self:
        """From the members of a problem document."""
        return cls(document["type"], document["title"], int(document["status"]), document["detail"])


@dataclass(frozen=True)
class ScoredImage:
    """One picture with its verdict.

    Attributes:
        filename: the name that it was sent under, if it had one.
        mse: mean squared difference between the model's input and its reconstruction.
        score: the error that the verdict is decided on.
        is_anomaly: exactly ``score > threshold``.
        p_value: share of normal pictures that look at least as unusual.
        warnings: what was done to the picture or looks wrong.
        input: what the model saw, a PNG file, if it was included.
        reconstruction: a PNG file, if it was included.
        error_map: a PNG file, if it was included.
        id: what ``label`` takes; None where the service keeps no labels.
    """

    filename: str | None
    mse: float
    score: float
    is_anomaly: bool
    verdict: Literal["normal", "anomaly"]
    p_value: float
    warnings: tuple[str, ...]
    input: bytes | None = field(default=None, repr=False)
    reconstruction: bytes | None = field(default=None, repr=False)
    error_map: bytes | None = field(default=None, repr=False)
    id: str | None = field(default=None, repr=False)
    status: Literal["scored"] = field(default="scored", init=False)

    @classmethod
    def parse(cls, filename: str | None, document: Document) -> Self:
        """From an entry of ``results``."""
        return cls(
            filename=filename,
            mse=float(document["mse"]),
            score=float(document["score"]),
            is_anomaly=bool(document["is_anomaly"]),
            verdict=document["verdict"],
            p_value=float(document["p_value"]),
            warnings=tuple(document["warnings"]),
            input=_png(document.get("input")),
            reconstruction=_png(document.get("reconstruction")),
            error_map=_png(document.get("error_map")),
            id=document.get("id"),
        )


@dataclass(frozen=True)
class RejectedImage:
    """One file that could not be scored."""

    filename: str | None
    error: Refusal
    status: Literal["rejected"] = field(default="rejected", init=False)


@dataclass(frozen=True)
class ScoreAnswer:
    """The answer to one request; ``results`` stand in the order of the pictures."""

    model: ModelVersion
    threshold: float
    false_alarm_rate: float
    results: tuple[ScoredImage | RejectedImage, ...]

    @property
    def scored(self) -> tuple[ScoredImage, ...]:
        """The pictures that have a verdict."""
        return tuple(result for result in self.results if isinstance(result, ScoredImage))

    @property
    def rejected(self) -> tuple[RejectedImage, ...]:
        """The files that could not be scored."""
        return tuple(result for result in self.results if isinstance(result, RejectedImage))

    @classmethod
    def parse(cls, filenames: tuple[str | None, ...], document: Document) -> Self:
        """From the body, and the names under which the pictures were sent."""
        results = tuple(
            ScoredImage.parse(filename, each)
            if each["status"] == "scored"
            else RejectedImage(filename, Refusal.parse(each["error"]))
            for filename, each in zip(filenames, document["results"], strict=True)
        )
        return cls(
            model=ModelVersion.parse(document["model"]),
            threshold=float(document["threshold"]),
            false_alarm_rate=float(document["false_alarm_rate"]),
            results=results,
        )


@dataclass(frozen=True)
class SideBySide:
    """A picture's verdict, shown.

    Attributes:
        png: a PNG file: what the model saw, its reconstruction, the error map, from left to right.
    """

    png: bytes = field(repr=False)
    model: ModelVersion
    threshold: float
    mse: float
    score: float
    is_anomaly: bool
    verdict: Literal["normal", "anomaly"]
    p_value: float

    @classmethod
    def parse(cls, png: bytes, headers: Mapping[str, str]) -> Self:
        """From the picture and the ``X-Anomaly-*`` headers."""
        verdict = headers["X-Anomaly-Verdict"]
        if verdict not in {"normal", "anomaly"}:
            raise ValueError(f"the verdict {verdict!r} is not known")
        name, _, version = headers["X-Anomaly-Model"].partition("/")
        return cls(
            png=png,
            model=ModelVersion(name, version),
            threshold=float(headers["X-Anomaly-Threshold"]),
            mse=float(headers["X-Anomaly-MSE"]),
            score=float(headers["X-Anomaly-Score"]),
            is_anomaly=verdict == "anomaly",
            verdict="anomaly" if verdict == "anomaly" else "normal",
            p_value=float(headers["X-Anomaly-P-Value"]),
        )


@dataclass(frozen=True)
class RefusedModel:
    """A model whose current version is not the one that serves."""

    name: str
    reason: str

    @classmethod
    def parse(cls, document: Document) -> Self:
        """From ``{"name", "reason"}``."""
        return cls(document["name"], document["reason"])


@dataclass(frozen=True)
class Health:
    """The service as it is now; ``reason`` says why it is not ``ok``."""

    status: str
    reason: str | None
    model: ModelVersion | None
    models: tuple[ModelVersion, ...]
    refused: tuple[RefusedModel, ...]
    uptime_s: float

    @property
    def ok(self) -> bool:
        """Whether the default model can score."""
        return self.status == "ok"

    @classmethod
    def parse(cls, document: Document) -> Self:
        """From the body."""
        default = document.get("model")
        return cls(
            status=document["status"],
            reason=document.get("reason"),
            model=ModelVersion.parse(default) if default else None,
            models=tuple(map(ModelVersion.parse, document["models"])),
            refused=tuple(map(RefusedModel.parse, document["refused"])),
            uptime_s=float(document["uptime_s"]),
        )


@dataclass(frozen=True)
class ModelCard:
    """A model of the store: what callers decide by, and the whole card as ``document``."""

    name: str
    version: str
    mode: Literal["L", "RGB"]
    height: int
    width: int
    threshold: float
    false_alarm_rate: float
    guarantee: str
    promise: str
    calibration_size: int
    finest_false_alarm_rate: float
    document: Document = field(repr=False)

    @classmethod
    def parse(cls, document: Document) -> Self:
        """From the body."""
        seen, calibration = document["input"], document["calibration"]
        return cls(
            name=document["name"],
            version=document["version"],
            mode=seen["mode"],
            height=int(seen["height"]),
            width=int(seen["width"]),
            threshold=float(document["threshold"]),
            false_alarm_rate=float(document["false_alarm_rate"]),
            guarantee=document["guarantee"],
            promise=document["promise"],
            calibration_size=int(calibration["size"]),
            finest_false_alarm_rate=float(calibration["finest_false_alarm_rate"]),
            document=document,
        )


@dataclass(frozen=True)
class Models:
    """The store, or a page of it: which model is the default, the cards, the models that cannot be served.

    Attributes:
        next: the name behind which the next page begins; None on the last.
    """

    default: str
    models: tuple[ModelCard, ...]
    refused: tuple[RefusedModel, ...]
    next: str | None = None

    @classmethod
    def parse(cls, document: Document) -> Self:
        """From the body."""
        return cls(
            default=document["default"],
            models=tuple(map(ModelCard.parse, document["models"])),
            refused=tuple(map(RefusedModel.parse, document["refused"])),
            next=document.get("next"),
        )

    def and_then(self, page: Self) -> Self:
        """This with the page that follows."""
        return replace(page, models=self.models + page.models, refused=self.refused + page.refused)


def _png(data_uri: str | None) -> bytes | None:
    if data_uri is None:
        return None
    if not data_uri.startswith(_DATA_URI):
        raise ValueError("a picture is no PNG data URI")
    return base64.b64decode(data_uri.removeprefix(_DATA_URI), validate=True)
