"""GET /metrics: metrics in the Prometheus text format."""

from fastapi import APIRouter, Response

from app.api.openapi import document as openapi
from app.api.openapi import examples
from app.api.services import RequestServices
from app.api.telemetry.metrics import MEDIA_TYPE

router = APIRouter(tags=["operations"])


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: openapi.example_response(
            "Metrics in the Prometheus text format", examples.METRICS, "text/plain", schema={"type": "string"}
        ),
        **openapi.CLOSED,
    },
)
async def metrics(services: RequestServices) -> Response:
    """Requests, latency, verdicts, errors, p-values, batches, queue depth and model versions."""
    services.request_log.flush()
    return Response(services.metrics.exposition(), media_type=MEDIA_TYPE)
