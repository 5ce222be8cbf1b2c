"""Whether the service can score."""

from typing import Literal

from pydantic import BaseModel, Field

from app.api.schemas.model_cards import RefusedModel
from app.api.schemas.scoring import ModelVersion


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
