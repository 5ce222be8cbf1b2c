"""The query of ``POST /score``: one model for parsing and for the OpenAPI document."""

from functools import lru_cache
from typing import Any, Final, Literal, get_args
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.api.errors import InvalidParameter

Extra = Literal["input", "reconstruction", "error_map"]

EXTRAS: Final[tuple[Extra, ...]] = get_args(Extra)


class ScoreQuery(BaseModel):
    """What a request may choose."""

    model_config = ConfigDict(frozen=True)

    model: str | None = Field(None, description="a name in the store; default: the service's default model")
    false_alarm_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of normal images that may be called anomalies; default: the one calibrated into the model",
    )
    include: tuple[Extra, ...] = Field(
        ("reconstruction",),
        description="comma list of images to return, each as a PNG data URI: `input` (what the model saw), "
        "`reconstruction`, `error_map`; empty: numbers alone",
    )

    @field_validator("include", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        names = tuple(name for part in value for name in map(str.strip, part.split(",")) if name)
        for name in names:
            if name not in EXTRAS:
                raise ValueError(f"{name[:40]!r} is none of {', '.join(EXTRAS)}")
        return names


@lru_cache(maxsize=256)  # clients repeat themselves
def parse_score_query(query_string: bytes) -> ScoreQuery:
    """Reads a query string; of a repeated ``model`` or ``false_alarm_rate`` the last counts.

    Raises:
        InvalidParameter: a value makes no sense.
    """
    fields: dict[str, Any] = dict(parse_qs(query_string.decode("latin-1"), keep_blank_values=True))
    for name in ("model", "false_alarm_rate"):
        if name in fields:
            fields[name] = fields[name][-1]
    try:
        return ScoreQuery.model_validate(fields)
    except (ValidationError, ValueError) as error:
        found = error.errors(include_url=False) if isinstance(error, ValidationError) else []
        reasons = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}" for each in found
        ] or [str(error)]
        raise InvalidParameter("; ".join(reasons)) from error
