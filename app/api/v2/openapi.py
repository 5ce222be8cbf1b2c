"""What the OpenAPI document says of the Open Inference Protocol's routes."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body

from app.api import errors as http
from app.api import problems
from app.api.v2.schemas import InferenceFailure, InferenceRequest, InferenceResponse
from app.inference import errors as domain

Responses = dict[int | str, dict[str, Any]]

_VERSION: Final = "20261125T040706Z-11dba8"


def _errors(*refused: tuple[type[Exception], str]) -> Responses:
    """The error answers of a route, in the protocol's shape, each with an example."""
    responses: Responses = {}
    for error, reason in refused:
        kind = problems.PROBLEM_TYPES[error]
        answer = responses.setdefault(
            problems.inference_status(kind),
            {"description": kind.title, "model": InferenceFailure, "content": {"application/json": {"examples": {}}}},
        )
        if kind.title not in answer["description"]:
            answer["description"] += f"; {kind.title}"
        answer["content"]["application/json"]["examples"][kind.slug] = {"value": {"error": reason}}
    return responses


_UNAUTHORIZED: Final = (http.Unauthorized, "send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
_UNKNOWN: Final = (
    (domain.UnknownModel, "there is no model named 'mnist-6'"),
    (domain.UnknownVersion, f"mnist-5 is served in version {_VERSION} alone"),
)
_NOT_READY: Final = (
    (domain.ModelUnavailable, "the model is being loaded"),
    (http.ShuttingDown, "the service is shutting down"),
)

_MODEL_ERRORS: Final = _errors(_UNAUTHORIZED, *_UNKNOWN, *_NOT_READY)


def _answers(description: str, example: dict[str, Any]) -> Responses:
    return {200: {"description": description, "content": {"application/json": {"example": example}}}}


LIVE: Final = _answers("The process runs", {"live": True})
READY: Final = {**_answers("The default model can score", {"ready": True}), **_errors(*_NOT_READY)}
SERVER: Final = {
    **_answers("The service", {"name": "anomaly-service", "version": "0.3.0", "extensions": ["binary_tensor_data"]}),
    **_errors(_UNAUTHORIZED),
}
MODEL: Final = {
    **_answers(
        "The model, as it is served",
        {
            "name": "mnist-5",
            "versions": [_VERSION],
            "platform": "pytorch_torchscript",
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]}],
            "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}],
        },
    ),
    **_MODEL_ERRORS,
}
MODEL_READY: Final = {**_answers("The model can score", {"name": "mnist-5", "ready": True}), **_MODEL_ERRORS}

_INFER_RESPONSES: Final[Responses] = {
    200: {
        "description": "Every image was scored",
        "content": {
            "application/json": {
                "example": {
                    "model_name": "mnist-5",
                    "model_version": _VERSION,
                    "id": "job-7",
                    "parameters": {"threshold": 0.1398, "false_alarm_rate": 0.01},
                    "outputs": [
                        {"name": "score", "datatype": "FP64", "shape": [1], "data": [0.0261]},
                        {"name": "is_anomaly", "datatype": "BOOL", "shape": [1], "data": [False]},
                    ],
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    **_errors(
        (http.InvalidInference, "image has the shape [1, 1, 32, 32], the model takes [-1, 1, 28, 28]"),
        (
            domain.UnsupportedFalseAlarmRate,
            "a marginal false alarm rate of 0.0001 needs at least 9999 calibration images, there are 1085; "
            "the finest rate these support is 0.0009208",
        ),
        (domain.NonFiniteScore, "the model returned an MSE of nan and a score of nan"),
        _UNAUTHORIZED,
        *_UNKNOWN,
        (http.BodyTooLarge, "the body has more than 16777216 bytes"),
        (http.TooManyFiles, "one request may carry 64 images, this one has 65"),
        (http.UnsupportedMediaType, "send the body as it is, without the Content-Encoding gzip"),
        (domain.Overloaded, "256 images are in work, 256 is the limit"),
        *_NOT_READY,
        (http.RequestTimedOut, "the request took longer than 30 s, upload included"),
    ),
}

_INFER_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "content": {
            "application/octet-stream": {
                "schema": {
                    "type": "string",
                    "format": "binary",
                    "description": "the JSON object, then the binary tensor; "
                    "Inference-Header-Content-Length says where the object ends",
                }
            }
        }
    }
}

_EXAMPLE: Final = {
    "id": "job-7",
    "parameters": {"false_alarm_rate": 0.01},
    "inputs": [
        {
            "name": "image",
            "shape": [1, 1, 28, 28],
            "datatype": "UINT8",
            "data": [0] * 392 + [255] * 392,
        }
    ],
    "outputs": [{"name": "score"}, {"name": "is_anomaly"}],
}

ROUTES: Final = APIRouter(prefix="/v2", tags=["open inference protocol"])

Request = Annotated[InferenceRequest, Body(examples=[_EXAMPLE])]


@ROUTES.post(
    "/models/{name}/infer",
    summary="Score images that are tensors already",
    responses=_INFER_RESPONSES,
    openapi_extra=_INFER_REQUEST,
)
async def model_infer(request: Request, name: str) -> InferenceResponse:
    """Open Inference Protocol: `image` in; `reconstruction`, `mse`, `score`, `p_value` and `is_anomaly` out.

    Without `outputs` all of them come. `mse`, `score` and `p_value` are FP64 and equal to the last bit what
    `POST /score` says of the same image. With the binary tensor extension tensors stand behind the JSON object, in
    the request, in the answer or in both.
    """
    raise NotImplementedError  # app.api.v2.routes answers


@ROUTES.post(
    "/models/{name}/versions/{version}/infer",
    summary="Score images that are tensors already, by one version of a model",
    responses=_INFER_RESPONSES,
    openapi_extra=_INFER_REQUEST,
)
async def version_infer(request: Request, name: str, version: str) -> InferenceResponse:
    """The same. Only the version that is served exists."""
    raise NotImplementedError  # app.api.v2.routes answers
