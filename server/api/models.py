"""Routes that show what is served."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from engines.solvers import SOLVERS
from models.spec import DiffusionDefaults
from server import errors
from server.api.parts import AppParts, Parts
from server.api.problems import document
from server.api.schemas import ClassEntry, ClassList, ModelDetail, ModelList, ModelSummary, RequestLimits
from server.hosting.catalogue import ServedModel


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


@router.get("/models", tags=["models"])
async def list_models(parts: AppParts) -> ModelList:
    """List every served version of every model."""
    return ModelList(models=[_summary(model, parts) for model in parts.catalogue])


@router.get("/models/{name}", tags=["models"], responses=NOT_SERVED)
async def show_model(model: NamedModel, parts: AppParts) -> ModelDetail:
    """Show a version of a model, its sampler defaults, licence and lineage."""
    spec, settings = model.version.spec, parts.settings
    return ModelDetail(
        **_summary(model, parts).model_dump(),
        reason=None if model.engine else model.reason,
        guidance=spec.guidance,
        defaults=spec.defaults.model_dump(),
        solvers=list(SOLVERS) if isinstance(spec.defaults, DiffusionDefaults) else [],
        limits=RequestLimits(
            n=settings.max_images, steps=settings.max_steps, deadline_ms=settings.deadline_ms
        ),
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
