"""The scoring use case over HTTP: adds admission, cancellation and the request log to the inference use case.

``/score`` and ``/v2`` parse a request, call :func:`answer` and render the results in their own formats.
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
from app.inference.serving.batch_queue import ServedModel
from app.inference.serving.batch_scorer import Content
from app.inference.serving.scoring import Results, score

_T = TypeVar("_T")


def require_running(services: Services) -> None:
    """Refuses new work during shutdown.

    Raises:
        ShuttingDown: the process is shutting down.
    """
    if services.draining.begun:
        raise ShuttingDown("the service is shutting down")


async def answer(
    services: Services,
    scope: Scope,
    model: ServedModel,
    images: Sequence[Content],
    point: OperatingPoint,
    render: Callable[[Results], _T],
    *,
    encode: bool = False,
    diagnose: bool = True,
) -> _T:
    """Scores the images of a request and renders the results.

    Args:
        services: of the application.
        scope: of the request. The summary for the request log is stored in its state.
        model: scores the images.
        images: as in :func:`app.inference.serving.scoring.score`.
        point: decides the verdicts.
        render: results → response. Runs in a thread if there are many pixels.
        encode: as in :func:`app.inference.serving.scoring.score`.
        diagnose: likewise.

    Raises:
        Overloaded: the queue is full.
        ClientDisconnect: the client has disconnected.
    """
    engine = services.engine
    with engine.admit(model, len(images)):
        with cancelled_on_disconnect(scope):
            results = await score(engine, model, images, point, encode=encode, diagnose=diagnose)
        request_state(scope).scored = summarize(results)
        spec = model.bundle.spec
        return await engine.render(len(images) * spec.height * spec.width, lambda: render(results))
