"""Labels and their images."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from app.api.schemas.scoring import ModelVersion
from app.inference.bundles.labels import Label
from app.inference.decisions.conformal import Verdict, verdict


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
