"""Responses of the service as frozen dataclasses. Unknown fields, as a newer service may send, are ignored."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

Document = Mapping[str, Any]

_DATA_URI: Final = "data:image/png;base64,"


@dataclass(frozen=True)
class ModelVersion:
    """Name and version of a model."""

    name: str
    version: str

    @classmethod
    def parse(cls, document: Document) -> Self:
        """Parses ``{"name", "version"}``."""
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
        """Parses a problem document (RFC 9457)."""
        return cls(document["type"], document["title"], int(document["status"]), document["detail"])


Box = tuple[int, int, int, int]
"""x and y of the left upper corner, width and height, in pixels of an image as a viewer shows it."""


@dataclass(frozen=True)
class Region:
    """A connected area above the threshold.

    Attributes:
        box: the smallest box of whole pixels that holds it.
        area: its share of the image.
        peak: the largest value of the model's map in it, in score units.
        polygon: the corners (x, y) of its outer boundary, clockwise.
    """

    box: Box
    area: float
    peak: float
    polygon: tuple[tuple[float, float], ...] = field(repr=False)

    @classmethod
    def parse(cls, document: Document) -> Self:
        """Parses an entry of ``regions``."""
        left, top, width, height = map(int, document["box"])
        polygon = tuple((float(x), float(y)) for x, y in document["polygon"])
        return cls((left, top, width, height), float(document["area"]), float(document["peak"]), polygon)


@dataclass(frozen=True)
class ScoredImage:
    """One image with its verdict.

    Attributes:
        filename: the name of the uploaded file, ``None`` if it had no name.
        mse: mean squared difference between the model's input and its reconstruction, both in [0, 1].
        score: the number that is compared with the threshold.
        is_anomaly: exactly ``score > threshold``.
        p_value: conformal p-value: (1 + weight of the calibration scores ≥ score) / (number of groups + 1). The weights
            of a group sum to 1. Without groups, every image is its own group with the weight 1.
        warnings: conversions of the image (resized, transparency flattened) and suspected problems (looks inverted).
        input: the model's input as a PNG file, if requested.
        reconstruction: a PNG file, if requested.
        error_map: a PNG file, if requested.
        mask: a PNG file of the regions, white on black, if requested and the model has a map.
        regions: where the image is anomalous, the strongest first; ``None`` if the model has no map.
        out_of_scope: whether the image does not look like the training images at all; it is then an anomaly.
        id: the id for ``AnomalyClient.label``; ``None`` if the service does not store labels.
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
    mask: bytes | None = field(default=None, repr=False)
    regions: tuple[Region, ...] | None = None
    out_of_scope: bool = False
    id: str | None = field(default=None, repr=False)
    status: Literal["scored"] = field(default="scored", init=False)

    @classmethod
    def parse(cls, filename: str | None, document: Document) -> Self:
        """Parses a scored entry of ``results``."""
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
            mask=_png(document.get("mask")),
            regions=None if (found := document.get("regions")) is None else tuple(map(Region.parse, found)),
            out_of_scope=bool(document.get("out_of_scope")),
            id=document.get("id"),
        )


@dataclass(frozen=True)
class RejectedImage:
    """One file that could not be scored, with the reason."""

    filename: str | None
    error: Refusal
    status: Literal["rejected"] = field(default="rejected", init=False)


@dataclass(frozen=True)
class ScoreAnswer:
    """The response to one score request; ``results`` are in the order of the images.

    Attributes:
        false_alarm_rate: the rate that the threshold guarantees; ``None`` if the request chose the threshold or
            ``fdr``.
        threshold: in score units; with ``fdr``, of use for the images of this request only.
    """

    model: ModelVersion
    threshold: float
    false_alarm_rate: float | None
    results: tuple[ScoredImage | RejectedImage, ...]

    @property
    def scored(self) -> tuple[ScoredImage, ...]:
        """The images that were scored."""
        return tuple(result for result in self.results if isinstance(result, ScoredImage))

    @property
    def rejected(self) -> tuple[RejectedImage, ...]:
        """The files that could not be scored."""
        return tuple(result for result in self.results if isinstance(result, RejectedImage))

    @classmethod
    def parse(cls, filenames: tuple[str | None, ...], document: Document) -> Self:
        """Parses the response body; ``filenames`` are the names of the uploaded images, in order."""
        results = tuple(
            ScoredImage.parse(filename, entry)
            if entry["status"] == "scored"
            else RejectedImage(filename, Refusal.parse(entry["error"]))
            for filename, entry in zip(filenames, document["results"], strict=True)
        )
        return cls(
            model=ModelVersion.parse(document["model"]),
            threshold=float(document["threshold"]),
            false_alarm_rate=None if (rate := document["false_alarm_rate"]) is None else float(rate),
            results=results,
        )


@dataclass(frozen=True)
class SideBySide:
    """One scored image with its strip of images.

    Attributes:
        png: a PNG file with, from left to right, the model's input, the reconstruction and the error map.
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
        """Parses a PNG response and its ``X-Anomaly-*`` headers."""
        verdict = headers["X-Anomaly-Verdict"]
        if verdict not in {"normal", "anomaly"}:
            raise ValueError(f"unknown verdict {verdict!r}")
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
class Overlay(SideBySide):
    """One scored image as a picture.

    Attributes:
        png: a PNG file of the image in its own proportions, with the error map over it and boxes around its regions.
    """


@dataclass(frozen=True)
class RefusedModel:
    """A model whose current version failed verification; an earlier version may be served instead."""

    name: str
    reason: str

    @classmethod
    def parse(cls, document: Document) -> Self:
        """Parses ``{"name", "reason"}``."""
        return cls(document["name"], document["reason"])


@dataclass(frozen=True)
class Health:
    """State of the service; ``reason`` explains a ``status`` other than ``ok``."""

    status: str
    reason: str | None
    model: ModelVersion | None
    models: tuple[ModelVersion, ...]
    refused: tuple[RefusedModel, ...]
    uptime_s: float

    @property
    def ok(self) -> bool:
        """Whether the service is ready to score with the default model."""
        return self.status == "ok"

    @classmethod
    def parse(cls, document: Document) -> Self:
        """Parses the response body."""
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
    """A model card: the fields most callers need, and the complete card as ``document``."""

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
        """Parses the response body."""
        input_spec, calibration = document["input"], document["calibration"]
        return cls(
            name=document["name"],
            version=document["version"],
            mode=input_spec["mode"],
            height=int(input_spec["height"]),
            width=int(input_spec["width"]),
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
    """The models of the store, or one page of them.

    Attributes:
        default: name of the default model.
        models: the model cards.
        refused: models whose current version failed verification.
        next: cursor of the next page, the name of the last model on this one; ``None`` on the last page.
    """

    default: str
    models: tuple[ModelCard, ...]
    refused: tuple[RefusedModel, ...]
    next: str | None = None

    @classmethod
    def parse(cls, document: Document) -> Self:
        """Parses the response body."""
        return cls(
            default=document["default"],
            models=tuple(map(ModelCard.parse, document["models"])),
            refused=tuple(map(RefusedModel.parse, document["refused"])),
            next=document.get("next"),
        )

    def with_page(self, page: Self) -> Self:
        """Returns these models followed by those of the next page."""
        return replace(page, models=self.models + page.models, refused=self.refused + page.refused)


def _png(data_uri: str | None) -> bytes | None:
    if data_uri is None:
        return None
    if not data_uri.startswith(_DATA_URI):
        raise ValueError("the image is not a PNG data URI")
    return base64.b64decode(data_uri.removeprefix(_DATA_URI), validate=True)
