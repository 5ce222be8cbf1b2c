"""The shapes of the Open Inference Protocol, version 2, for parsing and for the OpenAPI document.

What the protocol allows and this service has no use for (further parameters, ``model_name`` in the body) is ignored.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema

OutputName = Literal["reconstruction", "mse", "score", "p_value", "is_anomaly"]

INPUT: Final = "image"
BINARY_EXTENSION: Final = "binary_tensor_data"

# Refuses at the first wrong element: a body of the largest size could hold millions.
_Shape = Annotated[list[Annotated[int, Field(ge=1)]], FailFast(), Field(min_length=4, max_length=4)]
_Data = Annotated[Any, WithJsonSchema({"type": "array", "items": {}})]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class InputParameters(_Message):
    """Of an input tensor."""

    binary_data_size: int | None = Field(None, ge=0, description="bytes of the tensor behind the JSON object")


class InputTensor(_Message):
    """Images, at the size and in the colour mode of the model."""

    name: Literal["image"]
    shape: _Shape = Field(description="images, channels, height, width")
    datatype: Literal["FP32", "UINT8"] = Field(description="FP32: values in [0, 1]; UINT8: from 0 to 255")
    parameters: InputParameters = InputParameters(binary_data_size=None)
    data: _Data = Field(None, description="row-major values, nested or flat; absent where the tensor is binary")


class OutputParameters(_Message):
    """Of a requested output."""

    binary_data: bool | None = Field(None, description="whether the tensor shall stand behind the JSON object")


class RequestedOutput(_Message):
    """An output that the answer shall have."""

    name: OutputName
    parameters: OutputParameters = OutputParameters(binary_data=None)


class RequestParameters(_Message):
    """Of the whole request."""

    false_alarm_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of normal images that may be called anomalies; default: the one calibrated into the model",
    )
    binary_data_output: bool = Field(False, description="whether outputs shall be binary that do not say otherwise")


class InferenceRequest(_Message):
    """Images as one tensor."""

    id: str | None = Field(None, description="comes back in the answer")
    parameters: RequestParameters = RequestParameters(false_alarm_rate=None, binary_data_output=False)
    inputs: Annotated[list[InputTensor], FailFast(), Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], FailFast(), Field(max_length=5)] = Field(
        [], description="the outputs that are wanted; none: all"
    )


class BinarySize(BaseModel):
    """Of an output tensor that stands behind the JSON object."""

    binary_data_size: int


class OutputTensor(BaseModel):
    """One value or image for each image."""

    name: OutputName
    datatype: Literal["FP32", "FP64", "BOOL"]
    shape: list[int]
    parameters: BinarySize | None = None
    data: list[float] | list[bool] | None = Field(None, description="row-major values, flat")


class AnswerParameters(BaseModel):
    """What the verdicts were decided by."""

    threshold: float
    false_alarm_rate: float = Field(description="the rate that the threshold guarantees")


class InferenceResponse(BaseModel):
    """What the model made of the images."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: AnswerParameters
    outputs: list[OutputTensor]


class InferenceFailure(BaseModel):
    """Why there is no answer."""

    error: str


class ServerLive(BaseModel):
    """The process runs."""

    live: bool


class ServerReady(BaseModel):
    """Images can be scored."""

    ready: bool


class ModelReady(BaseModel):
    """The model can score."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """The service."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor that goes in or comes out; -1 stands for the number of images."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, str] | None = None


class ModelMetadata(BaseModel):
    """A model."""

    name: str
    versions: list[str] = Field(description="the one version that is served")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
