"""Routes for probes and for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from server import errors
from server.api.guard import require_metrics
from server.api.parts import AppParts
from server.api.problems import document
from server.api.schemas import Health

router = APIRouter()


@router.get("/livez", tags=["health"], responses={503: {"model": Health, "description": "Restart it."}})
async def live(parts: AppParts, response: Response) -> Health:
    """Tell whether the process works at all."""
    if parts.worker.alive:
        return Health(status="alive")
    response.status_code = 503
    return Health(status="dead", reasons=["the engine thread has ended"])


@router.get("/readyz", tags=["health"], responses={503: {"model": Health, "description": "Not ready."}})
async def ready(parts: AppParts, response: Response) -> Health:
    """Tell whether every model takes requests, and what went wrong even if they do."""
    ready = parts.lifecycle.ready
    response.status_code = 200 if ready else 503
    return Health(status="ready" if ready else "not ready", reasons=parts.lifecycle.reasons())


@router.get(
    "/metrics",
    tags=["health"],
    response_class=Response,
    dependencies=[Depends(require_metrics)],
    responses=document(errors.UnauthenticatedError),
)
async def show_metrics(parts: AppParts) -> Response:
    """Show the metrics in Prometheus' text format."""
    return Response(parts.metrics.render(), media_type=CONTENT_TYPE_LATEST)
