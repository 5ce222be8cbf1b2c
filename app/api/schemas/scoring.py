"""The answer of ``POST /score``, and problem documents (RFC 9457)."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.inference.decisions.regions import MOST


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
    out_of_scope: bool = Field(
        description="true if the image does not look like the training images at all, for example a screenshot or a "
        "black frame; the verdict is then anomaly. Models published before this check never say so"
    )
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
