"""The query parameters of ``POST /score``. One model both parses and documents them."""

from functools import lru_cache
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.api.errors import InvalidParameter, validation_reasons

Extra = Literal["input", "reconstruction", "error_map"]

EXTRAS: Final[tuple[Extra, ...]] = get_args(Extra)

FalseAlarmRate = Annotated[
    float | None,
    Field(
        gt=0,
        lt=1,
        description="accepted share of normal images that are classified as anomalies; "
        "default: the rate that the model was calibrated for",
    ),
]


class ScoreQuery(BaseModel):
    """Query parameters of ``POST /score``."""

    model_config = ConfigDict(frozen=True)

    model: str | None = Field(
        None, description="name of a model in the store; default: the default model of the service"
    )
    false_alarm_rate: FalseAlarmRate = None
    include: tuple[Extra, ...] = Field(
        ("reconstruction",),
        description="comma-separated images to return for each upload, each as a PNG data URI: `input` (the image as "
        "the model receives it), `reconstruction`, `error_map`; empty: numbers only",
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
