"""Every request that the clients send, and how its answer is read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from server.api.job_schemas import JobInfo, JobList
from server.api.schemas import ClassList, ModelDetail, ModelList, ModelSummary
from server.client.options import GenerateOptions, JobOptions, PreviewFields
from server.client.results import Generation

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and how its answer is read. Sending one twice makes nothing twice."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    json: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def generate(wanted: str | int | None, options: GenerateOptions) -> Call[Generation]:
    """Return the request for images of a class, by name or number."""
    return Call("POST", "/generate", _as(Generation), json=_class(wanted) | {**options, "stream": False})


def stream(wanted: str | int | None, preview: PreviewFields | None, options: GenerateOptions) -> Call[None]:
    """Return the same request, answered with events."""
    previews = {} if preview is None else {"preview": preview}
    return Call("POST", "/generate", _nothing, json=_class(wanted) | {**options, "stream": True, **previews})


def models() -> Call[list[ModelSummary]]:
    """Return the request for all served versions."""
    return Call("GET", "/models", lambda answer: _as(ModelList)(answer).models)


def model(name: str, version: int | None) -> Call[ModelDetail]:
    """Return the request for one version of a model."""
    return Call("GET", f"/models/{quote(name, safe='')}", _as(ModelDetail), params=_version(version))


def classes(name: str, version: int | None) -> Call[list[str]]:
    """Return the request for the names of a model's classes."""
    return Call(
        "GET",
        f"/models/{quote(name, safe='')}/classes",
        lambda answer: [entry.class_name for entry in _as(ClassList)(answer).classes],
        params=_version(version),
    )


def create_job(
    n: int, wanted: str | int | Sequence[str | int], key: str | None, options: JobOptions
) -> Call[JobInfo]:
    """Return the request for a new job; its key lets it be sent twice."""
    body = {"n": n, "classes": wanted if isinstance(wanted, str | int) else list(wanted), **options}
    return Call(
        "POST", "/jobs", _as(JobInfo), json=body, headers={"Idempotency-Key": key or uuid.uuid4().hex}
    )


def jobs() -> Call[list[JobInfo]]:
    """Return the request for the caller's jobs."""
    return Call("GET", "/jobs", lambda answer: _as(JobList)(answer).jobs)


def job(job_id: str) -> Call[JobInfo]:
    """Return the request for a job's state."""
    return Call("GET", _job(job_id), _as(JobInfo))


def resume_job(job_id: str) -> Call[JobInfo]:
    """Return the request to go on with a job that failed."""
    return Call("POST", f"{_job(job_id)}/resume", _as(JobInfo))


def delete_job(job_id: str) -> Call[None]:
    """Return the request to cancel a job and to remove its images."""
    return Call("DELETE", _job(job_id), _nothing)


def result(job_id: str, headers: Mapping[str, str]) -> Call[None]:
    """Return the request for a job's images, or the part of them that `headers` ask for."""
    return Call("GET", f"{_job(job_id)}/result", _nothing, headers=headers)


def _as(schema: type[M]) -> Callable[[httpx.Response], M]:
    return lambda answer: schema.model_validate_json(answer.content)


def _nothing(_: httpx.Response) -> None:
    return None


def _class(wanted: str | int | None) -> dict[str, Any]:
    if wanted is None:
        return {}
    return {"class_id": wanted} if isinstance(wanted, int) else {"class_name": wanted}


def _version(version: int | None) -> dict[str, Any]:
    return {} if version is None else {"version": version}


def _job(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"
