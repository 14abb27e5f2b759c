"""Routes by which an admin says which versions are in memory and which one is a model's default."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from server import errors
from server.api.body import M, read_json
from server.api.openapi import json_body
from server.api.parts import AppParts, Parts
from server.api.problems import document
from server.api.schemas import Whole
from server.hosting.catalogue import ModelState, ServedModel


class AnyVersion(BaseModel):
    """A version, by default the current one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: Whole | None = Field(
        default=None, ge=0, description="Its number in the registry; else the one that is current there."
    )


class OneVersion(BaseModel):
    """A version."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: Whole = Field(ge=0, description="Its number in the registry.")


class HostedVersion(BaseModel):
    """A version that the server knows."""

    version: int
    state: ModelState
    reason: str | None = Field(description="Why it is not ready.")
    memory_bytes: int = Field(description="What its engine holds now: weights, and states of its rows.")
    waiting_rows: int
    active_rows: int


class HostedModel(BaseModel):
    """A model and the versions of it that the server knows."""

    name: str
    default_version: int = Field(description="Requests that give no version get this one.")
    earlier_version: int | None = Field(description="A roll-back makes this one the default again.")
    refused: str | None = Field(description="Why the last switch was refused, if it was.")
    versions: list[HostedVersion]


class HostedModels(BaseModel):
    """All models, and the memory of their engines."""

    memory_bytes: int = Field(description="What all engines hold now.")
    memory_limit_bytes: int | None = Field(description="What they may hold, if there is a limit.")
    models: list[HostedModel]


NOT_KNOWN = (errors.UnknownModelError, errors.UnknownVersionError)
NO_BODY = (
    errors.InvalidInputError,
    errors.BodyTimeoutError,
    errors.BodyTooLargeError,
    errors.UnsupportedMediaTypeError,
)
NOT_LOADED = (errors.VersionRefusedError, errors.NotReadyError)

router = APIRouter(prefix="/admin/models", tags=["admin"])


@router.get("")
async def list_hosted(parts: AppParts) -> HostedModels:
    """Show every model's versions, what they are doing and how much memory they hold."""
    names = dict.fromkeys(model.key.name for model in parts.catalogue)
    return HostedModels(
        memory_bytes=sum(model.held_nbytes for model in parts.catalogue),
        memory_limit_bytes=parts.settings.memory_bytes,
        models=[_hosted(name, parts) for name in names],
    )


@router.post(
    "/{name}/load",
    openapi_extra=json_body(AnyVersion),
    responses=document(*NOT_KNOWN, *NO_BODY, *NOT_LOADED),
)
async def load(name: str, request: Request, parts: AppParts) -> HostedModel:
    """Load a version of the model's registry and check its golden image; answer once it is ready."""
    wanted = await _read(request, AnyVersion, parts)
    await parts.host.load(name, wanted.version)
    return _hosted(name, parts)


@router.post(
    "/{name}/unload",
    openapi_extra=json_body(OneVersion),
    responses=document(*NOT_KNOWN, *NO_BODY, errors.ConflictError),
)
async def unload(name: str, request: Request, parts: AppParts) -> HostedModel:
    """Stop serving a version; answer once its last image is made and its memory free."""
    wanted = await _read(request, OneVersion, parts)
    await parts.host.unload(name, wanted.version)
    return _hosted(name, parts)


@router.post(
    "/{name}/switch",
    openapi_extra=json_body(AnyVersion),
    responses=document(*NOT_KNOWN, *NO_BODY, *NOT_LOADED),
)
async def switch(name: str, request: Request, parts: AppParts) -> HostedModel:
    """Make a version the default one; load and check it first. Answer once it takes requests.

    The registry's pointer stays where it is: it counts again when it moves, and at the server's next start.
    """
    wanted = await _read(request, AnyVersion, parts)
    await parts.host.switch(name, wanted.version)
    return _hosted(name, parts)


@router.post(
    "/{name}/roll-back",
    responses=document(*NOT_KNOWN, *NOT_LOADED, errors.InvalidInputError, errors.ConflictError),
)
async def roll_back(name: str, parts: AppParts) -> HostedModel:
    """Make the version the default one that was it before the last switch."""
    await parts.host.roll_back(name)
    return _hosted(name, parts)


async def _read(request: Request, schema: type[M], parts: Parts) -> M:
    settings = parts.settings
    return await read_json(request, schema, limit=settings.body_bytes, timeout_s=settings.body_timeout_s)


def _hosted(name: str, parts: Parts) -> HostedModel:
    earlier = parts.catalogue.earlier(name)
    return HostedModel(
        name=name,
        default_version=parts.catalogue.find(name).key.number,
        earlier_version=earlier.key.number if earlier else None,
        refused=parts.host.refusals.get(name),
        versions=[_version(model, parts) for model in parts.catalogue.versions(name)],
    )


def _version(model: ServedModel, parts: Parts) -> HostedVersion:
    return HostedVersion(
        version=model.key.number,
        state=model.state,
        reason=model.reason or None,
        memory_bytes=model.held_nbytes,
        waiting_rows=parts.worker.waiting(model.key),
        active_rows=parts.worker.active(model.key),
    )
