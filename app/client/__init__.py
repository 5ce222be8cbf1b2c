"""Talks to a running service: ``AnomalyClient``, ``AsyncAnomalyClient``, and ``python -m app.client`` for folders.

    from app.client import AnomalyClient

    with AnomalyClient("http://127.0.0.1:8000") as service:
        for result in service.score(["five.png", "lying.png"]).scored:
            print(result.filename, result.verdict, result.p_value)

Needs httpx, and nothing of the service itself. Names are loaded when they are first used, so that the command
line can say in one line what is missing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.client.answers import (
        Health,
        ModelCard,
        Models,
        ModelVersion,
        Refusal,
        RefusedModel,
        RejectedImage,
        ScoreAnswer,
        ScoredImage,
        SideBySide,
    )
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
    from app.client.pictures import Picture
    from app.client.retrying import Retry

__all__ = [
    "DEFAULT_URL",
    "AllRejected",
    "AnomalyClient",
    "AsyncAnomalyClient",
    "ClientError",
    "Health",
    "ModelCard",
    "ModelVersion",
    "Models",
    "Overloaded",
    "Picture",
    "Problem",
    "Refusal",
    "RefusedModel",
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

_MODULES = ("answers", "clients", "errors", "pictures", "retrying")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in map(import_module, (f"{__name__}.{each}" for each in _MODULES)):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
