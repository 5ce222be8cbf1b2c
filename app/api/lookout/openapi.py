"""Documentation of the routes of Amazon Lookout for Vision: their examples and errors."""

from typing import Any, Final

from app.api import errors as http
from app.api import lookout_errors, problems
from app.api.lookout.schemas import Failure
from app.api.openapi import examples
from app.api.openapi.document import ENCODING_ERRORS, UNAUTHORIZED, UNKNOWN_MODEL, Responses, example_response
from app.files.formats import NAMES
from app.inference import errors as domain

_NAME: Final = examples.MODEL["name"]
_VERSION: Final = examples.MODEL["version"]
_PATH: Final = f"/2020-11-20/projects/{_NAME}/models/{_VERSION}"
_ARN: Final = f"arn:aws:lookoutvision:::model/{_NAME}/{_VERSION}"


def _errors(*errors: tuple[type[Exception], str]) -> Responses:
    """The error responses of a route, each with an example."""
    responses: Responses = {}
    for error, reason in errors:
        problem = problems.PROBLEM_TYPES[error]
        status = problems.inference_status(problem)
        content: dict[str, Any] = {"application/json": {"examples": {}}}
        response = responses.setdefault(
            status, {"description": lookout_errors.name_of(status), "model": Failure, "content": content}
        )
        body = lookout_errors.body_of(status, problems.detail_of(error(reason)), _PATH)
        response["content"]["application/json"]["examples"][problem.slug] = {"value": body}
    return responses


_UNREADABLE_STORE: Final = (domain.BundleRejected, f"{_NAME}/{_VERSION}: manifest.json is missing")
_UNKNOWN: Final = (
    UNKNOWN_MODEL,
    (domain.UnknownVersion, f"{_NAME} is served in version {_VERSION} only"),
)
_NOT_READY: Final = (
    (domain.DecodingUnavailable, "a process to decode images ended while it started"),
    (domain.ModelUnavailable, "the model is being loaded"),
    (http.ShuttingDown, "the service is shutting down"),
)
_READING: Final = _errors(UNAUTHORIZED, *_UNKNOWN, _UNREADABLE_STORE)
_LISTING: Final = _errors(
    UNAUTHORIZED,
    UNKNOWN_MODEL,
    _UNREADABLE_STORE,
    (http.InvalidParameter, "maxResults: Input should be greater than 0"),
)
_MODEL: Final = {
    "CreationTimestamp": 1764000000.0,
    "ModelVersion": _VERSION,
    "ModelArn": _ARN,
    "Description": "a further normal image is called an anomaly with probability at most 0.01",
    "Status": "HOSTED",
    "StatusMessage": "in memory",
    "Performance": None,
}
_PROJECT: Final = {
    "ProjectArn": f"arn:aws:lookoutvision:::project/{_NAME}",
    "ProjectName": _NAME,
    "CreationTimestamp": 1764000000.0,
}


def _ok(description: str, example: dict[str, Any]) -> Responses:
    return {200: example_response(description, example)}


PROJECTS: Final = {**_ok("The projects, by name", {"Projects": [_PROJECT], "NextToken": None}), **_LISTING}
PROJECT: Final = {
    **_ok("The project", {"ProjectDescription": {**_PROJECT, "Datasets": []}}),
    **_errors(UNAUTHORIZED, UNKNOWN_MODEL, _UNREADABLE_STORE),
}
MODELS: Final = {**_ok("The versions, the newest first", {"Models": [_MODEL], "NextToken": None}), **_LISTING}
MODEL: Final = {**_ok("The version", {"ModelDescription": _MODEL}), **_READING}
HOSTING: Final[Responses] = {
    202: example_response("What holds now", {"Status": "HOSTED"}),
    **_errors(UNAUTHORIZED, *_UNKNOWN, _UNREADABLE_STORE, *_NOT_READY),
}
DETECT: Final[Responses] = {
    **_ok(
        "The image was scored",
        {
            "DetectAnomalyResult": {
                "Source": {"Type": "direct"},
                "IsAnomalous": True,
                "Confidence": 0.9991,
                "Anomalies": [
                    {"Name": "background", "PixelAnomaly": {"TotalPercentageArea": 0.98, "Color": "#FFFFFF"}},
                    {"Name": "anomaly", "PixelAnomaly": {"TotalPercentageArea": 0.02, "Color": "#23A436"}},
                ],
                "AnomalyMask": "iVBORw0KGgo…",
            }
        },
    ),
    **_errors(
        (domain.UnreadableImage, f"not a readable image of the formats {', '.join(NAMES)}"),
        (domain.NonFiniteScore, "the model returned an MSE of nan and a score of nan"),
        UNAUTHORIZED,
        *_UNKNOWN,
        (http.BodyTooLarge, "the body has more than 16777216 bytes"),
        (domain.TooMuchMemory, "decoding the image takes about 710 MiB of memory, 560 MiB is the limit"),
        (domain.TooManyPixels, "the image has 30000 × 30000 = 900,000,000 pixels, more than 25,000,000"),
        *ENCODING_ERRORS,
        (domain.Overloaded, "256 images are in progress, 256 is the limit"),
        *_NOT_READY,
        (http.RequestTimedOut, "the request took longer than 30 s, upload included"),
    ),
}
DETECT_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in ("image/jpeg", "image/png")
        },
    }
}
