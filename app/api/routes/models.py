"""GET /models, /models/{name}: the model cards."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends

from app.api import openapi
from app.api.schemas import ModelCard, Models, RefusedModel
from app.api.services import Services, services
from app.inference.errors import BundleRejected, UnknownModel
from app.inference.registry import ModelRegistry

router = APIRouter(prefix="/models", tags=["models"])

Parts = Annotated[Services, Depends(services)]


@router.get("", summary="All models of the store", responses={401: openapi.MODEL_RESPONSES[401]})
async def models(parts: Parts) -> Models:
    """The card of every model, and the models whose current version cannot be served."""
    return await asyncio.to_thread(_survey, parts.registry)


@router.get("/{name}", summary="One model card", responses=openapi.MODEL_RESPONSES)
async def model(name: str, parts: Parts) -> ModelCard:
    """Version, input, threshold, calibration, evaluation, training, data fingerprint, checksums, libraries."""
    return await asyncio.to_thread(lambda: ModelCard.of(parts.registry.card(name)))


def _survey(registry: ModelRegistry) -> Models:
    cards, refused = [], {each.model: each.reason for each in registry.refused}
    for name in registry.store.names():
        # A broken neighbour must not hide the others: here a refusal is part of the answer.
        try:
            cards.append(ModelCard.of(registry.card(name)))
        except (BundleRejected, UnknownModel) as error:
            refused.setdefault(name, str(error))
    return Models(
        default=registry.default,
        models=cards,
        refused=[RefusedModel(name=name, reason=reason) for name, reason in sorted(refused.items())],
    )
