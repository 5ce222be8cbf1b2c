"""Client of the service: ``AnomalyClient``, ``AsyncAnomalyClient``, and ``python -m app.client`` for files and folders.

    from app.client import AnomalyClient

    with AnomalyClient("http://127.0.0.1:8000") as service:
        for result in service.score(["five.png", "lying.png"]).scored:
            print(result.filename, result.verdict, result.p_value)

Requires httpx; the command line also requires rich. Imports no server code. Names are imported on first use, so that
the command line can report a missing package in one line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.client.clients import DEFAULT_URL, AnomalyClient, AsyncAnomalyClient
    from app.client.errors import (
        AllRejected,
        ClientError,
        Overloaded,
        Problem,
        ServiceUnreachable,
        TooLarge,
        Unauthorized,
        Unavailable,
        UnexpectedAnswer,
        UnknownModel,
    )
    from app.client.images import ImageInput, Picture
    from app.client.responses import (
        Health,
        ModelCard,
        Models,
        ModelVersion,
        Overlay,
        Refusal,
        RefusedModel,
        Region,
        RejectedImage,
        ScoreAnswer,
        ScoredImage,
        SideBySide,
    )
    from app.client.retry import Retry

__all__ = [
    "DEFAULT_URL",
    "AllRejected",
    "AnomalyClient",
    "AsyncAnomalyClient",
    "ClientError",
    "Health",
    "ImageInput",
    "ModelCard",
    "ModelVersion",
    "Models",
    "Overlay",
    "Overloaded",
    "Picture",
    "Problem",
    "Refusal",
    "RefusedModel",
    "Region",
    "RejectedImage",
    "Retry",
    "ScoreAnswer",
    "ScoredImage",
    "ServiceUnreachable",
    "SideBySide",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "UnknownModel",
]

_MODULES = ("responses", "clients", "errors", "images", "retry")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in map(import_module, (f"{__name__}.{each}" for each in _MODULES)):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
