"""The manifest: the description of one version, with the checksums that reveal damage.

``manifest.json`` contains the SHA-256 of every other file of the version (the signature excepted) and, as ``seal``, the
SHA-256 of its own bytes, computed with the 64 hex digits of the seal set to zero.
"""

import base64
import hashlib
import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from app.inference.decisions.conformal import Calibration, Guarantee
from app.inference.decisions.regions import Cells
from app.inference.errors import BundleRejected, UnsupportedFalseAlarmRate
from app.inference.images.model_input import InputSpec
from app.inference.images.rendering import png

SCHEMA_VERSIONS: Final = (1, 2)
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
VERSION_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_UNSEALED: Final = "0" * 64
_FILE_PATTERN: Final = r"^(report/)?[A-Za-z0-9][A-Za-z0-9._-]*$"
_SEAL: Final = re.compile(rb'"seal": "([0-9a-f]{64})"')

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Rate = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scoring(_Part):
    """The scoring rule: how a score is computed from an image and its reconstruction."""

    rule: str = Field(description="name of the rule; `mse`: the score is the MSE")
    formula: str = Field(description="the rule as a formula on one line")


class ErrorMap(_Part):
    """The error map that the model returns for each image, since schema version 2."""

    height: int = Field(ge=1, description="places from top to bottom")
    width: int = Field(ge=1, description="places from left to right")
    score: Literal["maximum", "rule"] = Field(
        description="maximum: the score is the maximum of the map; rule: the scoring rule computes it"
    )


class ScopeRecord(_Part):
    """The check whether an image looks like the training images at all.

    The model returns ``scope`` for each image: the distance of its statistics from those of the training images,
    divided by the limit. Beyond 1, it has raised the image's score above all that it gives images within.
    """

    statistics: Literal["features", "pixels"] = Field(
        description="features: means over the image of a pretrained network's fine features; pixels: brightness, "
        "contrast, edges and a coarse thumbnail. Both also measure whether details are bright on dark or dark on bright"
    )
    limit: float = Field(gt=0, description="the distance beyond which an image is out of scope")
    largest: float = Field(ge=0, description="the largest distance of an image of the fit part, out of fold")
    rate: float = Field(gt=0, lt=1, description="share of the normal images that the limit is meant to exclude")


class InterestRecord(_Part):
    """The region of interest: the part of the model's input that counts. What is outside has no error."""

    share: float = Field(gt=0, lt=1, description="of the input")
    mask: str = Field(description="PNG file at the input's size, base64: white inside, black outside")

    @classmethod
    def of(cls, inside: Cells) -> Self:
        """The record of a region (H, W)."""
        mask = png(inside.astype(np.uint8) * np.uint8(255))
        return cls(share=round(float(inside.mean()), 4), mask=base64.b64encode(mask).decode())


class CalibrationRecord(_Part):
    """The scores of the calibration images: normal images that neither fitting nor model selection used."""

    size: int = Field(ge=1, description="number of calibration images")
    scores: tuple[FiniteFloat, ...] = Field(description="one per image, ascending")
    groups: tuple[int, ...] | None = Field(
        None, description="number of the group of each score, in the same order; None: every image is its own group"
    )
    folds: int | None = Field(
        None,
        ge=2,
        description="cross-calibration: number of folds; a model fitted without its fold scored each image of the fit "
        "part; None: the images were held back",
    )

    @classmethod
    def of(cls, calibration: Calibration, folds: int | None = None) -> Self:
        """The record of a calibration."""
        return cls(size=len(calibration), scores=calibration.scores, groups=calibration.groups, folds=folds)

    def restore(self) -> Calibration:
        """The calibration of this record."""
        return Calibration(self.scores, self.groups)

    @property
    def effective_size(self) -> int:
        """The number of groups, which the guarantee counts; without groups, the number of images."""
        return self.size if self.groups is None else len(set(self.groups))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.scores) != self.size:
            raise ValueError(f"size is {self.size}, but there are {len(self.scores)} scores")
        if any(a > b for a, b in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("scores are not in ascending order")
        if self.groups is not None and len(self.groups) != self.size:
            raise ValueError(f"size is {self.size}, but there are {len(self.groups)} group numbers")
        return self


class KindFigures(_Part):
    """Figures for one kind of test image."""

    count: int = Field(description="number of test images")
    flagged: Rate = Field(description="share of them with a score above the threshold")
    median_score: FiniteFloat


class LocalizationFigures(_Part):
    """How well the error map shows where the defects of the test images are, compared with masks of them."""

    images: int = Field(ge=1, description="number of anomalous test images with a mask")
    pixel_auroc: Rate | None = Field(description="area under the ROC curve over pixels")
    aupro: Rate | None = Field(
        description="mean share of a defect's pixels above a threshold, averaged over the false-positive rates of "
        "pixels from 0 to 0.3"
    )
    defects: int = Field(ge=1, description="number of connected defects in the masks")
    defects_found: Rate = Field(description="share of them that a region touches, at the threshold")
    regions: int = Field(ge=0, description="number of regions, on normal test images too")
    regions_on_defects: Rate | None = Field(description="share of them that touch a defect")


class Evaluation(_Part):
    """Figures on labelled test images. No choice was based on them."""

    normal: int = Field(ge=0, description="number of normal test images")
    anomalies: int = Field(ge=0, description="number of anomalous test images")
    false_alarm_rate: Rate | None = Field(description="share of normal test images above the threshold")
    detection_rate: Rate | None = Field(description="share of anomalous test images above the threshold")
    auroc: Rate | None = Field(description="area under the ROC curve")
    average_precision: Rate | None = Field(description="area under the precision-recall curve")
    kinds: dict[str, KindFigures] = Field(description="the same test images by kind, for example by class")
    localization: LocalizationFigures | None = Field(None, description="if there are masks of the defects")


class Split(_Part):
    """How the normal images were split. Indices refer to the normal images in the order of the data set."""

    fit: int = Field(ge=1, description="number of images that the weights were fitted on: all that are not listed here")
    validation: tuple[int, ...] = Field(description="used to monitor training; no choice was based on them")
    calibration: tuple[int, ...] = Field(description="used for the threshold only")

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        if set(self.validation) & set(self.calibration):
            raise ValueError("validation and calibration share images")
        return self


class Loss(_Part):
    """Mean loss of each epoch."""

    train: tuple[FiniteFloat, ...]
    validation: tuple[FiniteFloat, ...] = Field(description="empty if there were no validation images")


class BackboneRecord(_Part):
    """The pretrained network that a model contains."""

    name: str
    licence: str = Field(description="of the weights")
    sha256: Sha256 = Field(description="of the file of weights")


class TrialRecord(_Part):
    """A recipe that was tried on synthetic defects."""

    recipe: str
    rule: str = Field(description="scoring rule")
    height: int = Field(ge=1, description="of the input")
    width: int = Field(ge=1, description="of the input")
    auroc: Rate = Field(description="of synthetic defects against normal images that its models had not seen")


class Training(_Part):
    """How the weights were trained."""

    recipe: dict[str, str | bool | int | float | tuple[int, ...]] = Field(description="hyperparameters")
    parameters: int = Field(ge=1, description="number of weights")
    seed: int
    device: str
    threads: int = Field(description="CPU threads")
    seconds: float = Field(description="duration")
    split: Split
    loss: Loss
    backbone: BackboneRecord | None = Field(None, description="the pretrained network, if the model contains one")
    trials: tuple[TrialRecord, ...] | None = Field(
        None, description="how the recipe was chosen, the best first; None: the user gave it"
    )


class Data(_Part):
    """The data set."""

    source: str = Field(description="name of the data set, or of the image folder")
    normal: str = Field(description="which of its images are normal")
    fingerprint: Sha256 = Field(description="SHA-256 of the decoded normal images")
    groups: int = Field(
        ge=1, description="number of groups of normal images, for example objects; no split separates one"
    )
    unreadable: int = Field(ge=0, description="files that were skipped")
    excluded: int = Field(0, ge=0, description="files that the user left out")
    near_duplicates: dict[str, int] | None = Field(
        description="pairs of near-identical images across parts that should be independent; None: not searched for"
    )


class Recalibration(_Part):
    """How a new threshold was set for existing weights, and how the old one performs on the new images."""

    version: str = Field(
        pattern=VERSION_PATTERN,
        description="the version that the weights come from; its threshold and guarantee follow",
    )
    threshold: FiniteFloat
    false_alarm_rate: float = Field(gt=0, lt=1)
    guarantee: Guarantee
    size: int = Field(ge=1, description="number of its calibration images")
    flagged: Rate = Field(description="share of the new calibration images above the old threshold")
    data: Data = Field(description="the new calibration images; for labels, the fingerprint covers their lines")


class FileRecord(_Part):
    """One file of the version."""

    sha256: Sha256
    bytes: int = Field(ge=0, description="size")


class Golden(_Part):
    """An image with the figures that the model gave it at publication; they are recomputed at every load."""

    image: str = Field(description="PNG file, base64")
    mse: FiniteFloat
    score: FiniteFloat


class Manifest(_Part):
    """The description of one version. The fields are in the order of the file."""

    schema_version: Literal[1, 2] = 2
    name: str = Field(pattern=NAME_PATTERN)
    version: str = Field(pattern=VERSION_PATTERN)
    created_at: datetime
    input: InputSpec
    scoring: Scoring
    error_map: ErrorMap | None = Field(None, description="missing in schema version 1")
    scope: ScopeRecord | None = Field(None, description="missing if the model does not say what is out of scope")
    region_of_interest: InterestRecord | None = Field(None, description="missing if all of the input counts")
    threshold: FiniteFloat
    false_alarm_rate: float = Field(gt=0, lt=1)
    guarantee: Guarantee = Field(description="kind of guarantee; `promise` explains it")
    promise: str = Field(description="the guarantee as text, with what it does not cover")
    evaluation: Evaluation | None
    training: Training
    data: Data
    recalibration: Recalibration | None = Field(
        None,
        description="how the threshold was set, if not in training; then `training.split` and `data` describe the "
        "weights only, and figures at the old threshold are left out",
    )
    warnings: tuple[str, ...] = Field(
        (), description="why the model should not be trusted: its images were not suitable, and the user insisted"
    )
    libraries: dict[str, str] = Field(description="version of each library that was used")
    files: dict[Annotated[str, Field(pattern=_FILE_PATTERN)], FileRecord]
    golden: Golden
    calibration: CalibrationRecord
    seal: Sha256 = _UNSEALED

    @model_validator(mode="after")
    def _threshold_follows_from_calibration(self) -> Self:
        try:
            expected = self.calibration.restore().threshold_for(self.false_alarm_rate, self.guarantee)
        except UnsupportedFalseAlarmRate as error:
            raise ValueError(str(error)) from error
        if expected != self.threshold:
            raise ValueError(f"threshold is {self.threshold}, but the calibration scores give {expected}")
        return self

    @model_validator(mode="after")
    def _schema_says_whether_there_is_a_map(self) -> Self:
        if (self.error_map is None) is not (self.schema_version == 1):
            raise ValueError("error_map is required since schema version 2, and unknown before")
        if self.scope is not None and self.error_map is None:
            raise ValueError("scope is unknown before schema version 2")
        return self

    def to_bytes(self) -> bytes:
        """The content of ``manifest.json``, with a new seal."""
        # Left out if they have no effect: older programs reject unknown fields, and must read versions that use none.
        left_out: dict[str, Any] = {
            name: True
            for name in ("recalibration", "error_map", "scope", "region_of_interest", "warnings")
            if not getattr(self, name)
        }
        left_out["calibration"] = {name for name in ("groups", "folds") if getattr(self.calibration, name) is None}
        left_out["training"] = {name for name in ("backbone", "trials") if getattr(self.training, name) is None}
        left_out["input"] = self.input.unused
        if self.evaluation and self.evaluation.localization is None:
            left_out["evaluation"] = {"localization"}
        if not self.data.excluded:
            left_out["data"] = {"excluded"}
        if self.recalibration and not self.recalibration.data.excluded:
            left_out["recalibration"] = {"data": {"excluded"}}
        draft = self.model_copy(update={"seal": _UNSEALED})
        unsealed = draft.model_dump_json(indent=1, exclude=left_out).encode() + b"\n"
        return _replace_seal(unsealed, hashlib.sha256(unsealed).hexdigest())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Parses and verifies the content of ``manifest.json``.

        Raises:
            BundleRejected: it is not JSON, has another schema version, does not match its seal, or contradicts itself.
        """
        header = _read_header(raw)
        if header.get("schema_version") not in SCHEMA_VERSIONS:
            raise BundleRejected(
                "manifest.json has another schema version than those that this program supports, "
                f"{' and '.join(map(str, SCHEMA_VERSIONS))}"
            )
        seals = _SEAL.findall(raw)
        if len(seals) != 1 or hashlib.sha256(_replace_seal(raw, _UNSEALED)).hexdigest().encode() != seals[0]:
            raise BundleRejected("manifest.json was changed after it was written: its seal does not match")
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"] if part in _KNOWN_FIELDS) or "contents"
            raise BundleRejected(f"manifest.json is not valid: {where}: {first['msg']}") from error


# Messages name these fields and no others: they never quote the file.
_PARTS: Final[tuple[type[BaseModel], ...]] = (InputSpec, *_Part.__subclasses__())
_KNOWN_FIELDS: Final = {name for part in _PARTS for name in part.model_fields}


class _Header(BaseModel):
    model_config = ConfigDict(extra="allow")


def _read_header(raw: bytes) -> dict[str, Any]:
    try:
        return _Header.model_validate_json(raw).model_extra or {}
    except ValidationError as error:
        raise BundleRejected("manifest.json is not a JSON object: damaged or truncated") from error


def _replace_seal(raw: bytes, seal: str) -> bytes:
    return _SEAL.sub(b'"seal": "' + seal.encode() + b'"', raw)
