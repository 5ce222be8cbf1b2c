"""The scoring use case for HTTP: admission, cancellation and the request log around the inference one.

``/score`` and ``/v2`` parse a request, call :func:`answer`, and differ in how they render the results.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.types import Scope

from app.api.errors import ShuttingDown
from app.api.http.disconnect import cancelled_on_disconnect
from app.api.request_state import request_state
from app.api.services import Services
from app.api.telemetry.scored_requests import summarize
from app.inference.decisions.conformal import OperatingPoint
from app.inference.images.model_input import DecodedImage
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.scoring import Results, score

_T = TypeVar("_T")


def require_running(services: Services) -> None:
    """Refuses new work during shutdown.

    Raises:
        ShuttingDown: the process was told to stop.
    """
    if services.draining.begun:
        raise ShuttingDown("the service is shutting down")


async def answer(
    services: Services,
    scope: Scope,
    model: ServedModel,
    images: Sequence[bytes | DecodedImage],
    point: OperatingPoint,
    render: Callable[[Results], _T],
    *,
    encode: bool = False,
    diagnose: bool = True,
) -> _T:
    """Scores the images of a request and renders the results.

    Args:
        services: of the application.
        scope: of the request; its state gets the summary for the log.
        model: scores them.
        images: image files, or decoded images of the model's input size.
        point: what decides.
        render: results → answer. Runs in a thread where there are many pixels.
        encode: as in :func:`app.inference.serving.scoring.score`.
        diagnose: likewise.

    Raises:
        Overloaded: the queue is full.
        ClientDisconnect: the client is gone.
    """
    engine = services.engine
    with engine.admit(model, len(images)):
        with cancelled_on_disconnect(scope):
            results = await score(engine, model, images, point, encode=encode, diagnose=diagnose)
        request_state(scope).scored = summarize(results)
        spec = model.bundle.spec
        return await engine.render(len(images) * spec.height * spec.width, lambda: render(results))
