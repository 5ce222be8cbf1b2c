"""The query parameters of ``POST /score``. One model both parses and documents them."""

from functools import lru_cache
from typing import Any, Final, Literal, Self, get_args
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.api.errors import InvalidParameter, validation_reasons

Extra = Literal["input", "reconstruction", "error_map", "mask"]

View = Literal["overlay", "strip"]

EXTRAS: Final[tuple[Extra, ...]] = get_args(Extra)


class Sensitivity(BaseModel):
    """What decides the verdicts of a request: a false-alarm rate or a threshold."""

    model_config = ConfigDict(frozen=True)

    false_alarm_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="accepted share of normal images that are classified as anomalies; "
        "default: the rate that the model was calibrated for",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="in score units: images with a higher score are anomalies. No false-alarm rate is promised for it. "
        "Instead of `false_alarm_rate`",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.false_alarm_rate is not None and self.threshold is not None:
            raise ValueError("false_alarm_rate and threshold exclude each other; send one of them")
        return self


class Decision(Sensitivity):
    """What decides the verdicts of a request that may have many images: also a false discovery rate."""

    fdr: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="false discovery rate: the images of the request are decided together (Benjamini-Hochberg), so "
        "that on average at most this share of the images called anomalies is normal. Instead of `false_alarm_rate` "
        "and `threshold`",
    )

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.fdr is not None and (self.false_alarm_rate is not None or self.threshold is not None):
            raise ValueError("fdr excludes false_alarm_rate and threshold; send one of them")
        return self


class ScoreQuery(Decision):
    """Query parameters of ``POST /score``."""

    model: str | None = Field(
        None, description="name of a model in the store; default: the default model of the service"
    )
    include: tuple[Extra, ...] = Field(
        ("reconstruction",),
        description="comma-separated images to return for each upload, each as a PNG data URI: `input` (the image as "
        "the model receives it), `reconstruction`, `error_map`, `mask` (the regions, in the uploaded image's own "
        "proportions); empty: numbers only",
    )

    view: View = Field(
        "overlay",
        description="what `Accept: image/png` shows. `overlay`: the uploaded image in its own proportions with the "
        "error map over it and boxes around the regions; `strip`: the model's input, the reconstruction and the error "
        "map, side by side",
    )

    @field_validator("include", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        names = tuple(name for part in value for name in map(str.strip, part.split(",")) if name)
        for name in names:
            if name not in EXTRAS:
                raise ValueError(f"{name[:40]!r} is not one of {', '.join(EXTRAS)}")
        return names


@lru_cache(maxsize=256)  # most requests repeat one of a few queries
def parse_score_query(query_string: bytes) -> ScoreQuery:
    """Parses a query string. Of a repeated parameter the last value is used; ``include`` collects all.

    Raises:
        InvalidParameter: a value is invalid.
    """
    values = parse_qs(query_string.decode("latin-1"), keep_blank_values=True)
    fields: dict[str, Any] = {name: each if name == "include" else each[-1] for name, each in values.items()}
    try:
        return ScoreQuery.model_validate(fields)
    except ValidationError as error:
        raise InvalidParameter("; ".join(validation_reasons(error, "query"))) from error
