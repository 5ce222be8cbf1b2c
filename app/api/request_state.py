"""What the layers of the service share about one request, besides the ASGI scope."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from starlette.types import Scope

from app.inference.decisions.conformal import Calibration
from app.inference.serving.memory import Claim

_KEY: Final = "anomaly"


class ScoredRequest(NamedTuple):
    """The results of a request that scored images, for log, metrics and drift.

    Attributes:
        model: its name.
        version: of the model.
        calibration: what its scores are compared with.
        anomalies: number of scored images with that verdict.
        out_of_scope: number of those that do not look like the training images at all.
        mses, scores, p_values: one per scored image.
        rejected: the problem type's slug of each rejected image.
        queue_s, compute_s: of the slowest image.
    """

    model: str
    version: str
    calibration: Calibration
    anomalies: int
    out_of_scope: int
    mses: Sequence[float]
    scores: Sequence[float]
    p_values: Sequence[float]
    rejected: Sequence[str]
    queue_s: float
    compute_s: float


@dataclass(slots=True)
class RequestState:
    """Of one request.

    Attributes:
        request_id: from the client's ``X-Request-ID``, or random.
        claim: the memory that the request takes, and whose request it is.
        scored: set by the routes that score.
    """

    request_id: str
    claim: Claim
    scored: ScoredRequest | None = None


def open_request_state(scope: Scope, request_id: str, claim: Claim) -> RequestState:
    """Begins a request's state."""
    state = RequestState(request_id, claim)
    scope.setdefault("state", {})[_KEY] = state
    return state


def request_state(scope: Scope) -> RequestState:
    """The state of a request that the middleware has seen."""
    state: RequestState = scope["state"][_KEY]
    return state
