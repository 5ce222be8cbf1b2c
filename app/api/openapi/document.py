"""The OpenAPI document: worked examples, and the routes that FastAPI does not serve itself."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, Query
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from app.api import errors as http
from app.api import problems
from app.api.feedback import LabelBody
from app.api.openapi import examples
from app.api.queries import ScoreQuery
from app.api.schemas import Problem, ScoreAnswer
from app.inference import errors as domain
from app.inference.images.formats import MEDIA_TYPES

Responses = dict[int | str, dict[str, Any]]

_BINARY: Final = {"type": "string", "format": "binary"}
_PIXEL: Final = "data:image/png;base64,iVBORw0KGgo…"


TAGS: Final = [
    {"name": "scoring", "description": "Is this image an anomaly, and why?"},
    {
        "name": "models",
        "description": "What is known of the models in the store.",
    },
    {"name": "health", "description": "For people, restarters and balancers. Never needs a key."},
    {"name": "operations", "description": "What the service has done, for machines that watch it."},
    {"name": "open inference protocol", "description": "The same scores for clients that speak KServe's v2 protocol."},
]


def answer(description: str, example: Any, media_type: str = "application/json", **content: Any) -> dict[str, Any]:
    """A documented answer with its worked example."""
    return {"description": description, "content": {media_type: {"example": example, **content}}}


def problem_responses(*refused: tuple[type[Exception], str]) -> Responses:
    """The error answers of a route: the refusals it can give, each with an example's detail."""
    responses: Responses = {}
    for error, detail in refused:
        kind = problems.PROBLEM_TYPES[error]
        response = responses.setdefault(
            kind.status,
            {"description": kind.title, "model": Problem, "content": {problems.MEDIA_TYPE: {"examples": {}}}},
        )
        if kind.title not in response["description"]:
            response["description"] += f"; {kind.title}"
        if kind.headers:
            response["headers"] = {
                name: {"schema": {"type": "string"}, "example": kind.headers[name]} for name in kind.headers
            }
        response["content"][problems.MEDIA_TYPE]["examples"][kind.slug] = {
            "value": {**problems.describe(error(detail)), "instance": "0b6f4b1c2d"}
        }
    return responses


_UNAUTHORIZED: Final = (http.Unauthorized, "send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")

CLOSED: Final = problem_responses(_UNAUTHORIZED)

PAGE_RESPONSES: Final = problem_responses(
    _UNAUTHORIZED, (http.InvalidParameter, "limit: Input should be less than or equal to 500")
)

MODEL_RESPONSES: Final = problem_responses(
    _UNAUTHORIZED,
    (domain.UnknownModel, "there is no model named 'mnist-6'"),
    (
        domain.BundleRejected,
        "mnist-5/20261125T040706Z-11dba8: model.pt was changed: its SHA-256 is not the manifest's",
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
    304: {"description": "It is still what `If-None-Match` names"},
    **problem_responses(
        _UNAUTHORIZED,
        (domain.UnknownModel, "there is no model named 'mnist-6'"),
        (domain.UnknownFile, "mnist-5/20261125T040706Z-11dba8 has no file 'report/notes.txt'"),
        (
            domain.BundleRejected,
            "mnist-5/20261125T040706Z-11dba8: report/roc.png was changed: its SHA-256 is not the manifest's",
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
            **{image_type: {"schema": _BINARY} for image_type in MEDIA_TYPES},
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
                            "is_anomaly": False, "verdict": "normal", "p_value": 0.62,
                            "warnings": ["resized from 56×56 to 28×28"], "reconstruction": _PIXEL,
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
        (http.NoImage, "the form has no file part named file or files; it has 'image'"),
        _UNAUTHORIZED,
        (domain.UnknownModel, "there is no model named 'mnist-6'"),
        (http.NotAcceptable, "this answer comes as application/json or image/png, not as text/csv"),
        (http.BodyTooLarge, "the body has more than 16777216 bytes"),
        (http.TooManyFiles, "one request may carry 64 files, this one has more"),
        (domain.TooManyPixels, "the image has 30000 × 30000 = 900,000,000 pixels, more than 25,000,000"),
        (http.UnsupportedMediaType, "send multipart/form-data or an image/* body, not text/plain"),
        (domain.UnreadableImage, "not a readable image of the formats PNG, JPEG, WEBP, BMP, GIF, TIFF"),
        (
            domain.UnsupportedFalseAlarmRate,
            "a false alarm rate of 0.0001 needs at least 9999 calibration images, there are 1085; "
            "the finest rate these support is 0.0009208",
        ),
        (http.InvalidParameter, "include: 'heatmap' is none of input, reconstruction, error_map"),
        (domain.NonFiniteScore, "the model returned an MSE of nan and a score of nan"),
        (domain.Overloaded, "256 images are in work, 256 is the limit"),
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
    201: answer("The label was kept", examples.KEPT_LABEL),
    **problem_responses(
        _UNAUTHORIZED,
        (http.FeedbackOff, "labels are not kept here: ANOMALY_FEEDBACK_PATH is not set"),
        (http.UnknownAnswer, "this service has not issued that answer id"),
        (http.BodyTooLarge, "the body has more than 16384 bytes"),
        (http.InvalidLabel, "verdict: Input should be 'normal' or 'anomaly'"),
        (domain.Overloaded, "too many uploads are coming in at the same time"),
        (domain.LabelNotKept, "the file of labels cannot be written to: No space left on device"),
        (http.RequestTimedOut, "the request took longer than 30 s, upload included"),
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
    """Says of each image whether it is an anomaly, and shows why.

    Send one or many files as `multipart/form-data` under the name `file` or `files`, or one image as the raw
    body with its `image/*` type. `Accept: image/png` answers, for one image, with what the model saw, the
    reconstruction and the error map side by side.
    """
    raise NotImplementedError  # app.api.routes.score answers


def install(app: FastAPI, further_routes: Sequence[BaseRoute]) -> None:
    """Sets the application's OpenAPI document.

    Args:
        app: with its own routes.
        further_routes: documented routes that FastAPI does not serve itself, besides ``/score``.
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
            _mend(app.openapi_schema)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _mend(document: dict[str, Any]) -> None:
    """Says of errors what this service really sends: problem documents, and never FastAPI's own validation errors."""
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
