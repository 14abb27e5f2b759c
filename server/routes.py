"""The HTTP interface: which path does what."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from server import errors
from server.body import read_json
from server.catalogue import Catalogue, ServedModel
from server.disconnect import unless_disconnected
from server.encoding import ImageFormat
from server.lifecycle import Lifecycle
from server.metrics import Metrics
from server.negotiation import bare_image
from server.openapi import GENERATE_BODY, GENERATE_OK
from server.problems import document
from server.schemas import (
    ClassEntry,
    ClassList,
    GeneratedImage,
    GenerateRequest,
    GenerateResponse,
    Health,
    ModelDetail,
    ModelList,
    ModelSummary,
)
from server.service import Generated, Service
from server.settings import Settings
from server.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the routes work with."""

    settings: Settings
    catalogue: Catalogue
    lifecycle: Lifecycle
    worker: Worker
    service: Service
    metrics: Metrics


async def parts_of(request: Request) -> Parts:
    """Return the parts of the app that serves this request."""
    parts: Parts = request.app.state.parts
    return parts


AppParts = Annotated[Parts, Depends(parts_of)]


async def served_model(
    name: str,
    parts: AppParts,
    version: Annotated[int | None, Query(ge=0, description="Else the model's default version.")] = None,
) -> ServedModel:
    """Return the served version that a path and its query name."""
    return parts.catalogue.find(name, version)


NamedModel = Annotated[ServedModel, Depends(served_model)]
NOT_SERVED = document(errors.InvalidInputError, errors.UnknownModelError, errors.UnknownVersionError)

router = APIRouter()


@router.post(
    "/generate",
    tags=["images"],
    openapi_extra=GENERATE_BODY,
    response_model=GenerateResponse,
    responses={
        200: GENERATE_OK,
        **document(
            errors.InvalidInputError,
            errors.UnknownModelError,
            errors.UnknownVersionError,
            errors.NotAcceptableError,
            errors.BodyTimeoutError,
            errors.BodyTooLargeError,
            errors.UnsupportedMediaTypeError,
            errors.QueueFullError,
            errors.NotReadyError,
            errors.DrainingError,
            errors.DeadlineError,
            errors.EngineFailureError,
        ),
    },
)
async def generate(request: Request, parts: AppParts) -> Response:
    """Make images of a class."""
    settings = parts.settings
    with parts.metrics.observe_request():
        wanted = await read_json(
            request, GenerateRequest, limit=settings.body_bytes, timeout_s=settings.body_timeout_s
        )
        bare = bare_image(request.headers.get("accept", ""), wanted.format, wanted.n)
        work = parts.service.generate(wanted, bare or wanted.format or ImageFormat.PNG)
        generated = await unless_disconnected(request.receive, work)
    return _json_answer(generated) if bare is None else _bare_answer(generated)


@router.get("/models", tags=["models"])
async def list_models(parts: AppParts) -> ModelList:
    """List every served version of every model."""
    return ModelList(models=[_summary(model, parts) for model in parts.catalogue])


@router.get("/models/{name}", tags=["models"], responses=NOT_SERVED)
async def show_model(model: NamedModel, parts: AppParts) -> ModelDetail:
    """Show a version of a model, its sampler defaults, licence and lineage."""
    spec = model.version.spec
    return ModelDetail(
        **_summary(model, parts).model_dump(),
        reason=None if model.engine else model.reason,
        guidance=spec.guidance,
        defaults=spec.defaults.model_dump(),
        licence=spec.licence,
        lineage=spec.lineage.model_dump(),
    )


@router.get("/models/{name}/classes", tags=["models"], responses=NOT_SERVED)
async def list_classes(model: NamedModel) -> ClassList:
    """List a model's classes by number."""
    entries = [
        ClassEntry(class_id=number, class_name=text)
        for number, text in enumerate(model.version.spec.class_names)
    ]
    return ClassList(model=model.key.name, version=model.key.number, classes=entries)


@router.get("/livez", tags=["health"], responses={503: {"model": Health, "description": "Restart it."}})
async def live(parts: AppParts, response: Response) -> Health:
    """Tell whether the process works at all."""
    if parts.worker.alive:
        return Health(status="alive")
    response.status_code = 503
    return Health(status="dead", reasons=["the engine thread has ended"])


@router.get("/readyz", tags=["health"], responses={503: {"model": Health, "description": "Not ready."}})
async def ready(parts: AppParts, response: Response) -> Health:
    """Tell whether every model takes requests, and if not, why."""
    reasons = parts.lifecycle.reasons()
    response.status_code = 503 if reasons else 200
    return Health(status="not ready" if reasons else "ready", reasons=reasons)


@router.get("/metrics", tags=["health"], response_class=Response)
async def show_metrics(parts: AppParts) -> Response:
    """Show the metrics in Prometheus' text format."""
    return Response(parts.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _summary(model: ServedModel, parts: Parts) -> ModelSummary:
    spec = model.version.spec
    return ModelSummary(
        name=model.key.name,
        version=model.key.number,
        family=spec.family,
        classes=len(spec.class_names),
        ready=model.engine is not None,
        default=model is parts.catalogue.default,
        default_version=model is parts.catalogue.find(model.key.name),
    )


def _json_answer(generated: Generated) -> Response:
    answer = GenerateResponse(
        images=[
            GeneratedImage(
                seed=picture.seed,
                image=base64.b64encode(picture.data).decode(),
                width=picture.width,
                height=picture.height,
            )
            for picture in generated.pictures
        ],
        format=generated.format,
        model=generated.model,
        version=generated.version,
        parameters=generated.parameters,
        timings=generated.timings,
        request_id=structlog.contextvars.get_contextvars()["request_id"],
    )
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _bare_answer(generated: Generated) -> Response:
    picture, timings = generated.pictures[0], generated.timings
    headers = {
        "X-Seed": str(picture.seed),
        "X-Model": generated.model,
        "X-Model-Version": str(generated.version),
        "X-Parameters": generated.parameters.model_dump_json(exclude_none=True, ensure_ascii=True),
        "X-Queue-Ms": str(timings.queue_ms),
        "X-Compute-Ms": str(timings.compute_ms),
        "X-Encode-Ms": str(timings.encode_ms),
        "X-Total-Ms": str(timings.total_ms),
    }
    return Response(picture.data, media_type=generated.format.media_type, headers=headers)
