"""The request log: one log line and the metrics of every request.

Logging and counting a single request takes as long as decoding its image; doing so for many at once takes a fraction of
that. Requests are therefore buffered and flushed every 4 ms.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from starlette.types import Scope

from app.api.request_state import ScoredRequest, request_state
from app.api.telemetry import logging
from app.api.telemetry.metrics import Metrics

_FLUSH_S: Final = 0.004
_UNROUTED: Final = "unmatched"
_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}


class _Request(NamedTuple):
    scope: Scope
    status: int
    seconds: float

    @property
    def method(self) -> str:
        method: str = self.scope["method"]
        return method if method in _METHODS else "other"

    @property
    def scored(self) -> ScoredRequest | None:
        return request_state(self.scope).scored


class RequestLog:
    """Buffers requests, then logs and counts them.

    Args:
        metrics: counts the requests.
        on_scored: called for each request that scored images.
    """

    def __init__(self, metrics: Metrics, on_scored: Callable[[ScoredRequest], None]) -> None:
        self._metrics = metrics
        self._on_scored = on_scored
        self._requests: list[_Request] = []

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """Adds a request whose response was sent."""
        if not self._requests:
            asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)
        self._requests.append(_Request(scope, status, seconds))

    def flush(self) -> None:
        """Logs and counts the buffered requests."""
        requests, self._requests = self._requests, []
        logging.write_events(map(_event, requests))  # first: an error in counting must not lose lines
        self._count(requests)

    def _count(self, requests: Iterable[_Request]) -> None:
        durations: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
        by_model: defaultdict[str, list[ScoredRequest]] = defaultdict(list)
        for request in requests:
            route = getattr(request.scope.get("route"), "path", _UNROUTED)
            durations[request.method, route, request.status].append(request.seconds)
            if scored := request.scored:
                by_model[scored.model].append(scored)
                self._on_scored(scored)
                for reason in scored.rejected:
                    self._metrics.rejected.labels(reason).inc()
        for labels, seconds in durations.items():
            self._metrics.count_requests(*labels, seconds)
        for model, requests_of_model in by_model.items():
            self._metrics.count_scored(
                model,
                sum(each.anomalies for each in requests_of_model),
                sum(each.out_of_scope for each in requests_of_model),
                [mse for each in requests_of_model for mse in each.mses],
                [p_value for each in requests_of_model for p_value in each.p_values],
            )


def _event(request: _Request) -> dict[str, Any]:
    """The log event of a request."""
    scope, scored = request.scope, request.scored
    return {
        "event": "request",
        "request_id": request_state(scope).request_id,
        "method": request.method,
        "path": scope["raw_path"].decode("ascii", "backslashreplace"),
        "status": request.status,
        "ms": _ms(request.seconds),
        **(_image_fields(scored) if scored else {}),
    }


def _image_fields(scored: ScoredRequest) -> dict[str, Any]:
    return {
        "model": scored.model,
        "version": scored.version,
        "anomaly": scored.anomalies,
        "out_of_scope": scored.out_of_scope,
        "normal": len(scored.scores) - scored.anomalies,
        "rejected": len(scored.rejected),
        "queue_ms": _ms(scored.queue_s),
        "compute_ms": _ms(scored.compute_s),
    }


def _ms(seconds: float) -> float:
    return int(seconds * 1e5 + 0.5) / 100  # round() is slower
