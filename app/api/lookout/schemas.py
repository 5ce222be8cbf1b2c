"""Bodies of the API of Amazon Lookout for Vision, with its names. Times are seconds since 1970."""

from typing import Literal

from pydantic import BaseModel, Field

HostingStatus = Literal["HOSTED", "TRAINED"]


class Failure(BaseModel):
    """An error; the header ``x-amzn-ErrorType`` names the exception."""

    Message: str
    ResourceId: str | None = Field(None, description="what was not found")
    ResourceType: Literal["PROJECT", "MODEL"] | None = None


class ImageSource(BaseModel):
    """Where the image came from."""

    Type: Literal["direct"] = "direct"


class PixelAnomaly(BaseModel):
    """The area of a label."""

    TotalPercentageArea: float = Field(ge=0, le=1, description="share of the image")
    Color: str = Field(description="in the mask, as #RRGGBB")


class Anomaly(BaseModel):
    """A label of the mask."""

    Name: Literal["background", "anomaly"]
    PixelAnomaly: PixelAnomaly


class DetectAnomalyResult(BaseModel):
    """The verdict on an image."""

    Source: ImageSource
    IsAnomalous: bool
    Confidence: float = Field(description="1 - p of an anomaly, p of a normal image, where p is the conformal p-value")
    Anomalies: list[Anomaly] | None = Field(None, description="only of models with an error map, and of anomalies")
    AnomalyMask: str | None = Field(None, description="a PNG file as base64; as for `Anomalies`")


class DetectAnomaliesResponse(BaseModel):
    """Answer to DetectAnomalies."""

    DetectAnomalyResult: DetectAnomalyResult


class ModelPerformance(BaseModel):
    """Figures on labelled test images."""

    F1Score: float
    Recall: float
    Precision: float


class ModelMetadata(BaseModel):
    """A version of a model."""

    CreationTimestamp: float
    ModelVersion: str
    ModelArn: str
    Description: str = Field(description="what the false-alarm rate promises")
    Status: HostingStatus = Field(description="HOSTED: in memory; TRAINED: in the store")
    StatusMessage: str
    Performance: ModelPerformance | None = Field(None, description="if it was measured at training")


class DescribeModelResponse(BaseModel):
    """Answer to DescribeModel."""

    ModelDescription: ModelMetadata


class ListModelsResponse(BaseModel):
    """Answer to ListModels: the newest first."""

    Models: list[ModelMetadata]
    NextToken: str | None = None


class ProjectDescription(BaseModel):
    """A project."""

    ProjectArn: str
    ProjectName: str
    CreationTimestamp: float = Field(description="of the served version")
    Datasets: list[str] = Field([], description="always empty: images for training are not kept by the service")


class DescribeProjectResponse(BaseModel):
    """Answer to DescribeProject."""

    ProjectDescription: ProjectDescription


class ProjectMetadata(BaseModel):
    """A project in a list."""

    ProjectArn: str
    ProjectName: str
    CreationTimestamp: float


class ListProjectsResponse(BaseModel):
    """Answer to ListProjects."""

    Projects: list[ProjectMetadata]
    NextToken: str | None = None


class StatusResponse(BaseModel):
    """Answer to StartModel and StopModel."""

    Status: HostingStatus
