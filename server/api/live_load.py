"""How busy the server is: a few numbers for pages and scripts that ask often."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from prometheus_client import Histogram
from pydantic import BaseModel, Field

from server import errors
from server.api.guard import require_metrics
from server.api.parts import AppParts
from server.api.problems import document


class Load(BaseModel):
    """What the server is doing now, and sums since its start; two answers give what happened between them."""

    waiting_images: int = Field(description="Images that wait for a place in an engine.")
    active_images: int = Field(description="Images that are being made.")
    queue_limit: int = Field(description="Images that may wait.")
    engine_seconds: float = Field(description="Time that engine calls took, since the start.")
    requests: int = Field(description="Requests that got their images, since the start.")
    request_seconds: float = Field(description="Time that those requests took, all together.")


router = APIRouter()


@router.get(
    "/load",
    tags=["health"],
    dependencies=[Depends(require_metrics)],
    responses=document(errors.UnauthenticatedError),
)
async def show_load(parts: AppParts) -> Load:
    """Show how busy the server is."""
    keys = [model.key for model in parts.catalogue]
    requests, request_seconds = _observed(parts.metrics.request, outcome="ok")
    return Load(
        waiting_images=sum(parts.worker.waiting(key) for key in keys),
        active_images=sum(parts.worker.active(key) for key in keys),
        queue_limit=parts.settings.queue_rows,
        engine_seconds=_observed(parts.metrics.engine_call)[1],
        requests=int(requests),
        request_seconds=request_seconds,
    )


def _observed(histogram: Histogram, **labels: str) -> tuple[float, float]:
    """Return how many observations with these labels there were, and their sum."""
    samples = [
        sample
        for metric in histogram.collect()
        for sample in metric.samples
        if labels.items() <= sample.labels.items()
    ]
    count, total = (
        sum(sample.value for sample in samples if sample.name.endswith(suffix))
        for suffix in ("_count", "_sum")
    )
    return count, total
