"""Documentation of the Open Inference Protocol's routes for the OpenAPI document."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body

from app.api import errors as http
from app.api import problems
from app.api.openapi import examples
from app.api.openapi.document import ENCODING_ERRORS, UNAUTHORIZED, UNKNOWN_MODEL, Responses, example_response
from app.api.v2.schemas import InferenceFailure, InferenceRequest, InferenceResponse
from app.inference import errors as domain

_VERSION: Final = examples.MODEL["version"]


def _errors(*errors: tuple[type[Exception], str]) -> Responses:
    """The error responses of a route in the protocol's form, each with an example reason."""
    responses: Responses = {}
    for error, reason in errors:
        problem = problems.PROBLEM_TYPES[error]
        response = responses.setdefault(
            problems.inference_status(problem),
            {
                "description": problem.title,
                "model": InferenceFailure,
                "content": {"application/json": {"examples": {}}},
            },
        )
        if problem.title not in response["description"]:
            response["description"] += f"; {problem.title}"
        detail = problems.detail_of(error(reason))
        response["content"]["application/json"]["examples"][problem.slug] = {"value": {"error": detail}}
    return responses


_UNKNOWN: Final = (
    UNKNOWN_MODEL,
    (domain.UnknownVersion, f"mnist-5 is served in version {_VERSION} only"),
)
_NOT_READY: Final = (
    (domain.DecodingUnavailable, "a process to decode images ended while it started"),
    (domain.ModelUnavailable, "the model is being loaded"),
    (http.ShuttingDown, "the service is shutting down"),
)

_MODEL_ERRORS: Final = _errors(UNAUTHORIZED, *_UNKNOWN, *_NOT_READY)


def _ok(description: str, example: dict[str, Any]) -> Responses:
    return {200: example_response(description, example)}


LIVE: Final = _ok("The process is running", {"live": True})
READY: Final = {**_ok("The default model can score", {"ready": True}), **_errors(*_NOT_READY)}
SERVER: Final = {
    **_ok("The service", {"name": "anomaly-service", "version": "0.3.0", "extensions": ["binary_tensor_data"]}),
    **_errors(UNAUTHORIZED),
}
MODEL: Final = {
    **_ok(
        "The served model",
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
MODEL_READY: Final = {**_ok("The model can score", {"name": "mnist-5", "ready": True}), **_MODEL_ERRORS}

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
        (domain.UnreadableImage, "not a readable image of the formats PNG, JPEG, WEBP, BMP, GIF, TIFF"),
        (
            domain.UnsupportedFalseAlarmRate,
            "a marginal false alarm rate of 0.0001 needs at least 9999 calibration images, there are 1085; "
            "the finest rate these support is 0.0009208",
        ),
        (domain.NonFiniteScore, "the model returned an MSE of nan and a score of nan"),
        UNAUTHORIZED,
        *_UNKNOWN,
        (http.BodyTooLarge, "the body has more than 16777216 bytes"),
        (domain.TooMuchMemory, "decoding the image takes about 710 MiB of memory, 560 MiB is the limit"),
        (http.TooManyFiles, "one request may carry 64 images, this one has 65"),
        (domain.TooManyPixels, "the image has 30000 × 30000 = 900,000,000 pixels, more than 25,000,000"),
        *ENCODING_ERRORS,
        (domain.Overloaded, "256 images are in progress, 256 is the limit"),
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
                    "description": "the JSON object, followed by the binary tensor; "
                    "Inference-Header-Content-Length is the length of the JSON object",
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

_FILES_EXAMPLE: Final = {
    "parameters": {"threshold": 0.32},
    "inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": ["iVBORw0KGgo…", "iVBORw0KGgo…"]}],
}

ROUTES: Final = APIRouter(prefix="/v2", tags=["open inference protocol"])

Request = Annotated[InferenceRequest, Body(examples=[_EXAMPLE, _FILES_EXAMPLE])]


@ROUTES.post(
    "/models/{name}/infer",
    summary="Score images given as a tensor or as files",
    responses=_INFER_RESPONSES,
    openapi_extra=_INFER_REQUEST,
)
async def model_infer(request: Request, name: str) -> InferenceResponse:
    """Open Inference Protocol: `image` in; `reconstruction`, `mse`, `score`, `p_value`, `is_anomaly`, `error_map` out.

    `image` is a tensor of the model's input size, or one of image files (`BYTES`). Without `outputs`, all of them are
    returned. `error_map` is the model's own map; models that were published before they had one do not have this
    output. `mse`, `score` and `p_value` are FP64 and bit-identical to those of `POST /score` for the same image. With
    the binary tensor extension, tensors follow the JSON object in the request, in the response or in both.
    """
    raise NotImplementedError  # implemented in app.api.v2.routes


@ROUTES.post(
    "/models/{name}/versions/{version}/infer",
    summary="Score images given as a tensor or as files with one version of a model",
    responses=_INFER_RESPONSES,
    openapi_extra=_INFER_REQUEST,
)
async def version_infer(request: Request, name: str, version: str) -> InferenceResponse:
    """As `/v2/models/{name}/infer`. Only the served version is available."""
    raise NotImplementedError  # implemented in app.api.v2.routes
