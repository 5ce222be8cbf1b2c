"""The manifest: a version's model card, and the seal that makes a changed bit visible.

``manifest.json`` carries the SHA-256 of every other file of the version and, as ``seal``, the SHA-256 of its
own bytes taken with the seal's 64 hex digits replaced by zeros.
"""

import hashlib
import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from app.inference.decisions.conformal import Calibration, Guarantee
from app.inference.errors import BundleRejected, UnsupportedFalseAlarmRate
from app.inference.images.model_input import InputSpec

SCHEMA_VERSION: Final = 1
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
    """The rule that turns an image and its reconstruction into the score that decides."""

    rule: str = Field(description="name of the scoring rule; `mse`: the score is the MSE itself")
    formula: str = Field(description="the rule in one line of mathematics")


class CalibrationRecord(_Part):
    """The scores of normal images that neither fitting nor model selection has seen."""

    size: int = Field(ge=1)
    scores: tuple[FiniteFloat, ...] = Field(description="ascending")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.scores) != self.size:
            raise ValueError(f"size is {self.size}, but there are {len(self.scores)} scores")
        if any(a > b for a, b in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("scores are not in ascending order")
        return self


class KindFigures(_Part):
    """How one kind of test image fared at the threshold."""

    count: int
    flagged: Rate = Field(description="share with a score above the threshold")
    median_score: FiniteFloat


class Evaluation(_Part):
    """Figures on labelled test images. Nothing was chosen by them."""

    normal: int = Field(ge=0)
    anomalies: int = Field(ge=0)
    false_alarm_rate: Rate | None = Field(description="share of normal test images above the threshold")
    detection_rate: Rate | None = Field(description="share of anomalous test images above the threshold")
    auroc: Rate | None
    average_precision: Rate | None
    kinds: dict[str, KindFigures]


class Split(_Part):
    """Which normal image served what. Indices count the data set's normal images in their order."""

    fit: int = Field(ge=1, description="images that the weights were fitted on: all that are not listed here")
    validation: tuple[int, ...] = Field(description="watched during training, decided nothing")
    calibration: tuple[int, ...] = Field(description="decided the threshold and nothing else")

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        if set(self.validation) & set(self.calibration):
            raise ValueError("validation and calibration share images")
        return self


class Loss(_Part):
    """Mean loss of each epoch."""

    train: tuple[FiniteFloat, ...]
    validation: tuple[FiniteFloat, ...]


class Training(_Part):
    """How the weights came to be."""

    recipe: dict[str, str | bool | int | float | tuple[int, ...]]
    parameters: int = Field(ge=1, description="number of weights")
    seed: int
    device: str
    threads: int
    seconds: float
    split: Split
    loss: Loss


class Data(_Part):
    """What was learned from."""

    source: str = Field(description="name of the data set, or of the image folder")
    normal: str = Field(description="which images of it are normal")
    fingerprint: Sha256 = Field(description="of the normal images as the model saw them")
    groups: int = Field(ge=1, description="things that the normal images show; no split tears one apart")
    unreadable: int = Field(ge=0, description="files that were skipped")
    near_duplicates: dict[str, int] | None = Field(
        description="pairs of images that look alike across parts that should be independent; None: not looked for"
    )


class Recalibration(_Part):
    """How a threshold was set anew for weights that were there already, and what the old one makes of the images."""

    version: str = Field(
        pattern=VERSION_PATTERN, description="whose weights these are; what follows is of that version"
    )
    threshold: FiniteFloat
    false_alarm_rate: float = Field(gt=0, lt=1)
    guarantee: Guarantee
    size: int = Field(ge=1, description="calibration images")
    flagged: Rate = Field(description="share of the new calibration images above the old threshold")
    data: Data = Field(description="the new calibration images; of labels the fingerprint is that of their lines")


class FileRecord(_Part):
    """One file of the version."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Golden(_Part):
    """An image with the answers that the model gave when it was made; loading checks them again."""

    image: str = Field(description="PNG, base64")
    mse: FiniteFloat
    score: FiniteFloat


class Manifest(_Part):
    """The model card of one version, whole. Field order is the order in the file."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    version: str = Field(pattern=VERSION_PATTERN)
    created_at: datetime
    input: InputSpec
    scoring: Scoring
    threshold: FiniteFloat
    false_alarm_rate: float = Field(gt=0, lt=1)
    guarantee: Guarantee = Field(description="what the false-alarm rate promises, as the promise says")
    promise: str = Field(description="the guarantee in words, with what it does not cover")
    evaluation: Evaluation | None
    training: Training
    data: Data
    recalibration: Recalibration | None = Field(
        None,
        description="how the threshold came to be, where it is not the training's; then `training.split` and "
        "`data` tell of the weights alone, and figures at the old threshold are gone",
    )
    libraries: dict[str, str]
    files: dict[Annotated[str, Field(pattern=_FILE_PATTERN)], FileRecord]
    golden: Golden
    calibration: CalibrationRecord
    seal: Sha256 = _UNSEALED

    @model_validator(mode="after")
    def _threshold_follows_from_calibration(self) -> Self:
        try:
            expected = Calibration(self.calibration.scores).threshold_for(self.false_alarm_rate, self.guarantee)
        except UnsupportedFalseAlarmRate as error:
            raise ValueError(str(error)) from error
        if expected != self.threshold:
            raise ValueError(f"threshold is {self.threshold}, the calibration scores give {expected}")
        return self

    def to_bytes(self) -> bytes:
        """The sealed file."""
        # Left out where there is none: programs that do not know of it read all other manifests.
        left_out = {"recalibration"} if self.recalibration is None else None
        draft = self.model_copy(update={"seal": _UNSEALED})
        unsealed = draft.model_dump_json(indent=1, exclude=left_out).encode() + b"\n"
        return _replace_seal(unsealed, hashlib.sha256(unsealed).hexdigest())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Reads and verifies a sealed file.

        Raises:
            BundleRejected: not JSON, another schema version, a broken seal, or contradictory contents.
        """
        header = _read_header(raw)
        if header.get("schema_version") != SCHEMA_VERSION:
            raise BundleRejected(
                f"manifest.json has schema version {header.get('schema_version')!r}, "
                f"this program reads version {SCHEMA_VERSION}"
            )
        seals = _SEAL.findall(raw)
        if len(seals) != 1 or hashlib.sha256(_replace_seal(raw, _UNSEALED)).hexdigest().encode() != seals[0]:
            raise BundleRejected("manifest.json was changed after it was written: its seal does not match")
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "contents"
            raise BundleRejected(f"manifest.json is not valid: {where}: {first['msg']}") from error


class _Header(BaseModel):
    model_config = ConfigDict(extra="allow")


def _read_header(raw: bytes) -> dict[str, Any]:
    try:
        return _Header.model_validate_json(raw).model_extra or {}
    except ValidationError as error:
        raise BundleRejected("manifest.json is not a JSON object: damaged or cut short") from error


def _replace_seal(raw: bytes, seal: str) -> bytes:
    return _SEAL.sub(b'"seal": "' + seal.encode() + b'"', raw)
