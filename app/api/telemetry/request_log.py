"""What happened, for the metrics and the log.

Counting a request and telling of it costs as much as decoding its image when it is done between two requests, and
a fraction of that in a row. Requests are therefore noted, and told of together a moment later.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from starlette.types import Scope

from app.api.telemetry import logging as logs
from app.api.telemetry.metrics import Metrics
from app.inference.decisions.conformal import Calibration

_DELAY_S: Final = 0.004
_UNROUTED: Final = "unmatched"
_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}


class Scoring(NamedTuple):
    """What a request to score came to.

    Attributes:
        calibration: what the model decides by.
        anomalies: how many of the scored images are called that.
        mses, scores, p_values: one per scored image.
        rejected: the sort of problem of every rejected one.
        queue_s, compute_s: of the image that took longest.
    """

    model: str
    version: str
    calibration: Calibration
    anomalies: int
    mses: Sequence[float]
    scores: Sequence[float]
    p_values: Sequence[float]
    rejected: Sequence[str]
    queue_s: float
    compute_s: float


class _Request(NamedTuple):
    scope: Scope
    status: int
    seconds: float


class RequestLog:
    """Notes requests, and tells of them.

    Args:
        metrics: counts them.
        watch: hears of what they scored.
    """

    def __init__(self, metrics: Metrics, watch: Callable[[Scoring], None]) -> None:
        self._metrics = metrics
        self._watch = watch
        self._requests: list[_Request] = []

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Notes a request whose answer is sent; ``scope["state"]`` has its id and, if it scored, a ``scoring``."""
        if not self._requests:
            asyncio.get_running_loop().call_later(_DELAY_S, self.tell)
        self._requests.append(_Request(scope, status, seconds))

    def tell(self) -> None:
        """Counts and logs what was noted."""
        requests, self._requests = self._requests, []
        self._count(requests)
        logs.tell(map(_line, requests))

    def _count(self, requests: Iterable[_Request]) -> None:
        ended: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
        scored: defaultdict[str, list[Scoring]] = defaultdict(list)
        for request in requests:
            route = getattr(request.scope.get("route"), "path", _UNROUTED)
            ended[_method(request), route, request.status].append(request.seconds)
            if scoring := _scoring(request):
                scored[scoring.model].append(scoring)
                self._watch(scoring)
                for sort in scoring.rejected:
                    self._metrics.rejected.labels(sort).inc()
        for sort_of_request, seconds in ended.items():
            self._metrics.count_requests(*sort_of_request, seconds)
        for model, scorings in scored.items():
            self._metrics.count_scored(
                model,
                sum(scoring.anomalies for scoring in scorings),
                [mse for scoring in scorings for mse in scoring.mses],
                [p_value for scoring in scorings for p_value in scoring.p_values],
            )


def _line(request: _Request) -> dict[str, Any]:
    """What the log says of a request."""
    scope, scoring = request.scope, _scoring(request)
    return {
        "event": "request",
        "request_id": scope["state"]["request_id"],
        "method": _method(request),
        "path": scope["raw_path"].decode("ascii", "backslashreplace"),
        "status": request.status,
        "ms": _ms(request.seconds),
        **(_images(scoring) if scoring else {}),
    }


def _images(scoring: Scoring) -> dict[str, Any]:
    """What a request's line says of its images."""
    return {
        "model": scoring.model,
        "version": scoring.version,
        "anomaly": scoring.anomalies,
        "normal": len(scoring.scores) - scoring.anomalies,
        "rejected": len(scoring.rejected),
        "queue_ms": _ms(scoring.queue_s),
        "compute_ms": _ms(scoring.compute_s),
    }


def _method(request: _Request) -> str:
    method: str = request.scope["method"]
    return method if method in _METHODS else "other"


def _scoring(request: _Request) -> Scoring | None:
    scoring: Scoring | None = request.scope["state"].get("scoring")
    return scoring


def _ms(seconds: float) -> float:
    return int(seconds * 1e5 + 0.5) / 100  # round() costs more
