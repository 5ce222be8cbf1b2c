"""What a command line asks the service before it starts: whether it is there, and serves the model."""

import os

from app.client.clients import API_KEY_VARIABLE, AsyncAnomalyClient
from app.client.errors import ServiceUnreachable, Unauthorized
from app.client.responses import ModelCard


class CannotRun(Exception):
    """A command cannot start; the message gives the reason and a remedy."""


async def model_card(service: AsyncAnomalyClient, name: str | None, *, url: str, api_key: str | None) -> ModelCard:
    """Returns the card of the requested model.

    Args:
        service: the client.
        name: of the model; ``None``: the default model of the service.
        url: of the service, for messages.
        api_key: that was given, for messages.

    Raises:
        CannotRun: the service is unreachable, rejects the key, or cannot serve the model.
    """
    try:
        await service.health()  # not retried, so that a wrong URL fails at once
        models = await service.models()
    except ServiceUnreachable as error:
        raise CannotRun(f"{error}; is a service running at {url}? `python -m app` starts one") from error
    except Unauthorized as error:
        given = api_key is not None or os.environ.get(API_KEY_VARIABLE)
        reason = "the API key is not valid" if given else "the service requires an API key"
        raise CannotRun(f"{reason}; set {API_KEY_VARIABLE} or use --api-key") from error
    name = name or models.default
    for card in models.models:
        if card.name == name:
            return card
    for refused in models.refused:
        if refused.name == name:
            raise CannotRun(f"the service cannot load the model {name}: {refused.reason}")
    available = ", ".join(card.name for card in models.models) or "none"
    raise CannotRun(f"unknown model {name}; available: {available}")
