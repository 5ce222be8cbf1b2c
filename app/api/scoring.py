"""The scoring use case over HTTP: adds admission, cancellation and the request log to the inference use case.

``/score`` and ``/v2`` parse a request, call :func:`answer` and render the results in their own formats.
"""

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from starlette.types import Scope

from app.api.errors import ShuttingDown
from app.api.http.disconnect import cancelled_on_disconnect
from app.api.queries import Decision, Sensitivity
from app.api.request_state import request_state
from app.api.services import Services
from app.api.telemetry.scored_requests import summarize
from app.inference.decisions.conformal import OperatingPoint
from app.inference.decisions.false_discovery import FalseDiscoveryRate
from app.inference.images.cost import decode_cost
from app.inference.images.model_input import InputSpec
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import SMALL_BYTES, Content
from app.inference.serving.scoring import Results, score
from app.inference.serving.scoring import overlay as draw_overlay

_RESULT_BYTES_PER_VALUE: Final = 12  # input and reconstruction as float32, and an image of the answer
_PICTURE_BYTES_PER_PIXEL: Final = 64  # of the picture and the map, in colour and as floats
_STALLED: Final = 0.5  # of a request's time without any progress
_SMALL_PNG: Final = re.compile(rb"\x89PNG.{12}\0\0\0.\0\0\0.", re.DOTALL)  # at most 255 pixels wide and high

_T = TypeVar("_T")


def require_running(services: Services) -> None:
    """Refuses new work during shutdown.

    Raises:
        ShuttingDown: the process is shutting down.
    """
    if services.draining.begun:
        raise ShuttingDown("the service is shutting down")


def why_unavailable(services: Services) -> str | None:
    """Why the default model cannot score, as one sentence; None if it can."""
    registry = services.registry
    if registry.default_served() is None:
        return registry.why_unavailable(registry.default)
    if (stalled := services.engine.stalled_s()) > services.settings.request_timeout_s * _STALLED:
        return f"images wait, and none was finished for {stalled:.0f} s"
    return None


async def answer(
    services: Services,
    scope: Scope,
    model: ServedModel,
    images: Sequence[Content],
    decided_by: OperatingPoint | FalseDiscoveryRate,
    render: Callable[[Results], _T],
    *,
    bytes_per_value: int = 0,
    picture_pixels: int = 0,
    encode: bool = False,
    diagnose: bool = True,
) -> _T:
    """Scores the images of a request and renders the results.

    Args:
        services: of the application.
        scope: of the request. The summary for the request log is stored in its state.
        model: scores the images.
        images: as in :func:`app.inference.serving.scoring.score`.
        decided_by: decides the verdicts.
        render: results → response. Runs in a thread if there are many pixels.
        bytes_per_value: memory of the response for each value of a model input.
        picture_pixels: most pixels, of one byte, of a further image in the response for each image.
        encode: as in :func:`app.inference.serving.scoring.score`.
        diagnose: likewise.

    Raises:
        Overloaded: the queue is full, or there is too little memory now.
        TooMuchMemory: the results can never be held in memory.
        ClientDisconnect: the client has disconnected.
    """
    engine, state, spec = services.engine, request_state(scope), model.bundle.spec
    client, values = state.claim.client, len(images) * math.prod(spec.shape)
    state.claim.take(values * (_RESULT_BYTES_PER_VALUE + bytes_per_value) + len(images) * picture_pixels)
    with engine.admit(model, len(images), client=client, seconds=sum(_decode_seconds(each, spec) for each in images)):
        with cancelled_on_disconnect(scope):
            results = await score(engine, model, images, decided_by, client=client, encode=encode, diagnose=diagnose)
        state.scored = summarize(results)
        pixels = len(images) * (spec.height * spec.width + picture_pixels)
        return await engine.render(pixels, lambda: render(results))


async def overlay(services: Services, scope: Scope, model: ServedModel, file: bytes, results: Results) -> bytes:
    """The picture of a scored image, as :func:`app.inference.serving.scoring.overlay`.

    Raises:
        Overloaded, TooMuchMemory, ClientDisconnect: as :func:`answer`.
    """
    claim = request_state(scope).claim
    (scored,) = results.scored
    claim.take(math.prod(results.localize(scored).picture_size) * _PICTURE_BYTES_PER_PIXEL)
    with cancelled_on_disconnect(scope):
        return await draw_overlay(services.engine, model, file, results, client=claim.client)


def _decode_seconds(image: Content, spec: InputSpec) -> float:
    """The time to decode an image, if that is not done with its batch in less than a millisecond."""
    if not isinstance(image, bytes) or (len(image) <= SMALL_BYTES and _SMALL_PNG.match(image)):
        return 0
    return decode_cost(image, spec).seconds


async def decision(model: ServedModel, wanted: Decision) -> OperatingPoint | FalseDiscoveryRate:
    """What decides the verdicts of a request.

    Raises:
        UnsupportedFalseAlarmRate: as :meth:`Bundle.operating_point` and :meth:`FalseDiscoveryRate.of`.
    """
    if wanted.fdr is None:
        return await operating_point(model, wanted)
    return FalseDiscoveryRate.of(wanted.fdr, model.bundle.calibration)


async def operating_point(model: ServedModel, sensitivity: Sensitivity) -> OperatingPoint:
    """The threshold for a request. The strict guarantee takes a sum over many scores, so not on the event loop.

    Raises:
        UnsupportedFalseAlarmRate: as :meth:`Bundle.operating_point`.
    """
    rate, threshold = sensitivity.false_alarm_rate, sensitivity.threshold
    if rate is None or model.bundle.manifest.guarantee == "marginal":
        return model.bundle.operating_point(rate, threshold)
    return await asyncio.to_thread(model.bundle.operating_point, rate, threshold)
