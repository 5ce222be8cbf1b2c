"""The OpenAPI document: example responses, and routes that FastAPI does not serve itself."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Query
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from app.api import errors as http
from app.api import problems
from app.api.feedback import LabelBody
from app.api.http.body.json_images import EncodedImage
from app.api.openapi import examples
from app.api.queries import ScoreQuery
from app.api.schemas.scoring import Problem, ScoreAnswer
from app.files.formats import MEDIA_TYPES, NAMES
from app.inference import errors as domain

Responses = dict[int | str, dict[str, Any]]

_BINARY: Final = {"type": "string", "format": "binary"}
_PNG_URI: Final = "data:image/png;base64,iVBORw0KGgo…"


TAGS: Final = [
    {"name": "scoring", "description": "Score images, and label the results."},
    {"name": "models", "description": "Information about the models in the store."},
    {"name": "health", "description": "For operators, liveness probes and load balancers. No key is required."},
    {"name": "operations", "description": "Monitoring."},
    {"name": "lookout for vision", "description": "The API of Amazon Lookout for Vision, for its clients."},
    {"name": "open inference protocol", "description": "The same scores over the v2 protocol of KServe."},
]


def example_response(
    description: str, example: Any, media_type: str = "application/json", **content: Any
) -> dict[str, Any]:
    """A documented response with an example."""
    return {"description": description, "content": {media_type: {"example": example, **content}}}


def problem_responses(*errors: tuple[type[Exception], str]) -> Responses:
    """The error responses of a route, from its errors, each with an example detail."""
    responses: Responses = {}
    for error, detail in errors:
        problem = problems.PROBLEM_TYPES[error]
        response = responses.setdefault(
            problem.status,
            {"description": problem.title, "model": Problem, "content": {problems.MEDIA_TYPE: {"examples": {}}}},
        )
        if problem.title not in response["description"]:
            response["description"] += f"; {problem.title}"
        response["content"][problems.MEDIA_TYPE]["examples"][problem.slug] = {
            "value": {**problems.describe(error(detail)), "instance": "0b6f4b1c2d"}
        }
    for status, response in responses.items():
        if headers := _shared_headers([problems.PROBLEM_TYPES[error] for error, _ in errors], status):
            response["headers"] = headers
    return responses


def _shared_headers(types: Sequence[problems.ProblemType], status: int | str) -> dict[str, Any]:
    """The headers that every error of a status has, since the document cannot tell errors of one status apart."""
    headers = [problem.headers or {} for problem in types if problem.status == status]
    return {
        name: {"schema": {"type": "string"}, "example": value}
        for name, value in headers[0].items()
        if all(name in each for each in headers)
    }


UNAUTHORIZED: Final = (http.Unauthorized, "send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")

ENCODING_ERRORS: Final = (
    (http.MalformedEncoding, "the body ends before the end of its gzip data"),
    (
        http.UnsupportedEncoding,
        "the Content-Encoding br is not supported; send gzip or deflate, or the body as it is",
    ),
)

UNKNOWN_MODEL: Final = (domain.UnknownModel, "there is no model named 'mnist-6'")

CLOSED: Final = problem_responses(UNAUTHORIZED)

PAGE_RESPONSES: Final = problem_responses(
    UNAUTHORIZED, (http.InvalidParameter, "limit: Input should be less than or equal to 500")
)

MODEL_RESPONSES: Final = problem_responses(
    UNAUTHORIZED,
    UNKNOWN_MODEL,
    (
        domain.BundleRejected,
        "mnist-5/20261125T040706Z-11dba8: model.pt was changed: its SHA-256 differs from manifest.json",
    ),
)

REPORT_RESPONSES: Final[Responses] = {
    200: {
        "description": "The file",
        "content": {
            "image/png": {"schema": _BINARY},
            "text/html": {"schema": {"type": "string"}, "example": examples.REPORT},
        },
    },
    304: {"description": "Not modified: the file still has the `ETag` in `If-None-Match`"},
    **problem_responses(
        UNAUTHORIZED,
        UNKNOWN_MODEL,
        (domain.UnknownFile, "mnist-5/20261125T040706Z-11dba8 has no file 'report/notes.txt'"),
        (
            domain.BundleRejected,
            "mnist-5/20261125T040706Z-11dba8: report/roc.png was changed: its SHA-256 differs from manifest.json",
        ),
    ),
}

_SCORE_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": _BINARY}},
                    "required": ["file"],
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": EncodedImage.model_json_schema(), "minItems": 1}
                    },
                    "required": ["images"],
                    "additionalProperties": False,
                },
                "example": examples.ENCODED_IMAGES,
            },
            **{image_type: {"schema": _BINARY} for image_type in (*MEDIA_TYPES, "application/octet-stream")},
        },
    }
}

_SCORE_RESPONSES: Final[Responses] = {
    200: {
        "description": "At least one image was scored",
        "content": {
            "application/json": {
                "example": {
                    "model": examples.MODEL,
                    "threshold": 0.0609,
                    "false_alarm_rate": 0.01,
                    "results": [
                        {
                            "status": "scored", "filename": "five.png", "mse": 0.0187, "score": 0.0187,
                            "is_anomaly": False, "verdict": "normal", "out_of_scope": False, "p_value": 0.62,
                            "warnings": ["resized from 56×56 to 28×28"], "regions": [], "reconstruction": _PNG_URI,
                        },
                        {
                            "status": "scored", "filename": "seven.png", "mse": 0.0912, "score": 0.0912,
                            "is_anomaly": True, "verdict": "anomaly", "out_of_scope": False, "p_value": 0.0009,
                            "warnings": ["resized from 56×56 to 28×28"], "regions": [examples.REGION],
                            "reconstruction": _PNG_URI,
                        },
                        {
                            "status": "rejected", "filename": "notes.txt",
                            "error": problems.describe(
                                domain.UnreadableImage("not a readable image of the formats PNG, JPEG, …")
                            ),
                        },
                    ],
                }
            },
            "image/png": {"schema": _BINARY},
        },
    },
    **problem_responses(
        (http.MalformedMultipart, "the multipart body ends before its closing boundary"),
        (http.MalformedJson, "images.0.data: Field required"),
        ENCODING_ERRORS[0],
        (http.NoImage, "the form has no file part named file or files; it has 'image'"),
        UNAUTHORIZED,
        UNKNOWN_MODEL,
        (http.NotAcceptable, "the response is available as application/json or image/png, not as text/csv"),
        (http.BodyTooLarge, "the body has more than 16777216 bytes"),
        (domain.TooMuchMemory, "decoding the image takes about 710 MiB of memory, 560 MiB is the limit"),
        (http.TooManyFiles, "one request may carry 64 files, this one has 65"),
        (domain.TooManyPixels, "the image has 30000 × 30000 = 900,000,000 pixels, more than 25,000,000"),
        (
            http.UnsupportedMediaType,
            "send multipart/form-data, application/json, or the image as an image/* or application/octet-stream body, "
            "not text/plain",
        ),
        ENCODING_ERRORS[1],
        (domain.UnreadableImage, f"not a readable image of the formats {', '.join(NAMES)}"),
        (
            domain.UnsupportedFalseAlarmRate,
            "a marginal false alarm rate of 0.0001 needs at least 9999 calibration images, there are 1085; "
            "the finest rate these support is 0.0009208",
        ),
        (http.InvalidParameter, "include: 'heatmap' is not one of input, reconstruction, error_map, mask"),
        (domain.NonFiniteScore, "the model returned an MSE of nan and a score of nan"),
        (domain.Overloaded, "256 images are in progress, 256 is the limit"),
        (domain.DecodingUnavailable, "a process to decode images ended while it started"),
        (domain.ModelUnavailable, "the model is being loaded"),
        (http.ShuttingDown, "the service is shutting down"),
        (http.RequestTimedOut, "the request took longer than 30 s, upload included"),
    ),
}  # fmt: skip

LABEL_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": LabelBody.model_json_schema(), "example": examples.LABEL}},
    }
}

LABEL_RESPONSES: Final[Responses] = {
    201: example_response("The label was stored", examples.KEPT_LABEL),
    **problem_responses(
        UNAUTHORIZED,
        (http.FeedbackOff, "labels are not kept: ANOMALY_FEEDBACK_PATH is not set"),
        (http.UnknownAnswer, "this service has not issued that answer id"),
        (http.LabelTooLarge, "the body has more than 16384 bytes"),
        *ENCODING_ERRORS,
        (http.InvalidLabel, "verdict: Input should be 'normal' or 'anomaly'"),
        (domain.Overloaded, "other requests take the memory"),
        (domain.LabelNotKept, "the label file cannot be written: No space left on device"),
        (http.RequestTimedOut, "the request took longer than 30 s, upload included"),
    ),
}

LABELS_RESPONSES: Final[Responses] = {
    200: {
        "description": "The last labels; as application/jsonl all of them, as they were stored",
        "content": {
            "application/json": {"example": examples.KEPT_LABELS},
            "application/jsonl": {"schema": {"type": "string"}},
        },
    },
    **problem_responses(
        UNAUTHORIZED,
        (http.NotAcceptable, "the response is available as application/json or application/jsonl, not as text/html"),
        (http.InvalidParameter, "limit: Input should be less than or equal to 1000"),
        (domain.LabelNotKept, "the label file cannot be read: Permission denied"),
    ),
}

LABELLED_IMAGE_RESPONSES: Final[Responses] = {
    200: {
        "description": "The file",
        "content": {each: {"schema": _BINARY} for each in (*MEDIA_TYPES, "application/octet-stream")},
    },
    **problem_responses(
        UNAUTHORIZED,
        (http.FeedbackOff, "images are not stored: ANOMALY_FEEDBACK_IMAGES is not set"),
        (http.UnknownAnswer, "no labelled image has this name"),
    ),
}

_scoring = APIRouter(tags=["scoring"])


@_scoring.post(
    "/score",
    summary="Score images",
    responses=_SCORE_RESPONSES,
    openapi_extra=_SCORE_REQUEST,
)
async def score(query: Annotated[ScoreQuery, Query()]) -> ScoreAnswer:
    """Classifies each image as normal or as an anomaly and returns the model's reconstruction.

    Send one or more files as `multipart/form-data` with the field name `file` or `files`, one or more as base64 in
    `application/json`, or one image as the raw body with its `image/*` type or `application/octet-stream`. The body may
    be compressed (`Content-Encoding: gzip` or `deflate`); the byte limit holds for it decompressed, too.

    With `Accept: image/png`, the response for a single image is a PNG file: the image in its own proportions, at most
    1024 pixels on the longer side, with the error map over it and boxes around the regions. `view=strip` shows the
    model's input, the reconstruction and the error map side by side instead.
    """
    raise NotImplementedError  # implemented in app.api.routes.score


def install(app: FastAPI, further_routes: Sequence[BaseRoute]) -> None:
    """Sets the application's OpenAPI document.

    Args:
        app: an application with its own routes.
        further_routes: documented routes that FastAPI does not serve itself, in addition to ``/score``.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                tags=TAGS,
                routes=[*_scoring.routes, *app.routes, *further_routes],
            )
            _correct_errors(app.openapi_schema)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _correct_errors(document: dict[str, Any]) -> None:
    """Documents errors as problem documents, and removes FastAPI's validation errors, which are never sent."""
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    for responses in (operation["responses"] for operation in operations):
        for status, response in list(responses.items()):
            content = response.get("content", {})
            if problems.MEDIA_TYPE in content:
                content[problems.MEDIA_TYPE]["schema"] = content.pop("application/json")["schema"]
            elif content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
                del responses[status]
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
