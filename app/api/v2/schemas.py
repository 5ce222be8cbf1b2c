"""Messages of the Open Inference Protocol, version 2: they parse requests and describe the routes.

Members that the protocol allows and this service does not use (other parameters, ``model_name``) are ignored.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema

from app.api.queries import Decision

OutputName = Literal["reconstruction", "mse", "score", "p_value", "is_anomaly", "error_map", "out_of_scope"]

INPUT: Final = "image"
BINARY_EXTENSION: Final = "binary_tensor_data"

# FailFast stops at the first invalid element; a large body can have millions.
_Shape = Annotated[list[Annotated[int, Field(ge=1)]], FailFast(), Field(min_length=1, max_length=4)]
_Data = Annotated[Any, WithJsonSchema({"type": "array", "items": {}})]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class InputParameters(_Message):
    """Parameters of an input tensor."""

    binary_data_size: int | None = Field(None, ge=0, description="bytes of the tensor after the JSON object")


class InputTensor(_Message):
    """Images of the model's input size and colour mode, or image files."""

    name: Literal["image"]
    shape: _Shape = Field(description="images, channels, height, width; BYTES: images, or images and 1")
    datatype: Literal["FP32", "UINT8", "BYTES"] = Field(
        description="FP32: values in [0, 1]; UINT8: from 0 to 255; BYTES: image files, as base64 texts in `data`, or "
        "each after its length (4 bytes, little-endian) if the tensor is binary"
    )
    parameters: InputParameters = InputParameters(binary_data_size=None)
    data: _Data = Field(None, description="row-major values, nested or flat; absent if the tensor is binary")


class OutputParameters(_Message):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(None, description="whether the tensor follows the JSON object as bytes")


class RequestedOutput(_Message):
    """An output that the response must contain."""

    name: OutputName
    parameters: OutputParameters = OutputParameters(binary_data=None)


class RequestParameters(_Message, Decision):
    """Parameters of a request."""

    binary_data_output: bool = Field(False, description="whether outputs are binary by default")


class InferenceRequest(_Message):
    """An inference request: images as one tensor."""

    id: str | None = Field(None, description="returned in the response")
    parameters: RequestParameters = RequestParameters(
        false_alarm_rate=None, threshold=None, fdr=None, binary_data_output=False
    )
    inputs: Annotated[list[InputTensor], FailFast(), Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], FailFast(), Field(max_length=7)] = Field(
        [], description="the requested outputs; empty: all"
    )


class BinarySize(BaseModel):
    """Parameters of an output tensor that follows the JSON object as bytes."""

    binary_data_size: int


class OutputTensor(BaseModel):
    """An output tensor: one value or image for each input image."""

    name: OutputName
    datatype: Literal["FP32", "FP64", "BOOL"]
    shape: list[int]
    parameters: BinarySize | None = None
    data: list[float] | list[bool] | None = Field(None, description="row-major values, flat")


class AnswerParameters(BaseModel):
    """The operating point of the verdicts."""

    threshold: float = Field(
        description="with `fdr`, it separates the flagged images of this request from the others, and is of no use for "
        "other images"
    )
    false_alarm_rate: float | None = Field(
        description="the rate that the threshold guarantees; null if the request chose the threshold or `fdr`"
    )
    fdr: float | None = Field(None, description="as requested; absent if it was not")


class InferenceResponse(BaseModel):
    """The results for the images of a request."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: AnswerParameters
    outputs: list[OutputTensor]


class InferenceFailure(BaseModel):
    """An error response."""

    error: str


class ServerLive(BaseModel):
    """Liveness of the server."""

    live: bool


class ServerReady(BaseModel):
    """Readiness of the server."""

    ready: bool


class ModelReady(BaseModel):
    """Readiness of a model."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """Metadata of the server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """Metadata of an input or output tensor. In its shape, -1 stands for the number of images."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, str] | None = None


class ModelMetadata(BaseModel):
    """Metadata of a model."""

    name: str
    versions: list[str] = Field(description="the served version")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
