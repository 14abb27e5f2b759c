"""Routes of big batches."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import FileResponse, Response

from server import errors
from server.api.body import read_json
from server.api.guard import RequestCaller
from server.api.job_schemas import JobInfo, JobList, JobRequest
from server.api.openapi import json_body
from server.api.parts import AppParts
from server.api.problems import document
from server.api.schemas import Parameters
from server.jobs.job import Job, JobState
from server.jobs.plan import ResultFormat

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Any text of the client's; the same request with the same key creates no second job.",
    ),
]
EXAMPLES = {
    "fid": {
        "summary": "50,000 images, all classes in turn",
        "value": {"n": 50_000, "classes": "all", "seed": 0, "format": "npz"},
    },
    "dogs": {"summary": "100 dogs as PNG files", "value": {"n": 100, "classes": 207, "format": "zip"}},
}
FILE = {kind.media_type: {"schema": {"type": "string", "format": "binary"}} for kind in ResultFormat}
RESULT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file, with Content-Length and an ETag.", "content": FILE},
    206: {"description": "The part that a Range header asks for.", "content": FILE},
    416: {"description": "The file has no such range."},
}


async def own_job(job_id: str, parts: AppParts, caller: RequestCaller) -> Job:
    """Return the caller's job that a path names."""
    return parts.jobs.find(job_id, caller)


OwnJob = Annotated[Job, Depends(own_job)]
router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs",
    status_code=201,
    response_model=JobInfo,
    response_model_exclude_none=True,
    openapi_extra=json_body(JobRequest, EXAMPLES),
    responses={
        200: {"model": JobInfo, "description": "The job that this Idempotency-Key made before."},
        **document(
            errors.InvalidInputError,
            errors.IdempotencyError,
            errors.UnknownModelError,
            errors.UnknownVersionError,
            errors.BodyTimeoutError,
            errors.BodyTooLargeError,
            errors.UnsupportedMediaTypeError,
            errors.CallerBusyError,
            errors.RateLimitError,
            errors.NotReadyError,
            errors.DrainingError,
            errors.StorageError,
        ),
    },
)
async def create_job(
    request: Request,
    response: Response,
    parts: AppParts,
    caller: RequestCaller,
    idempotency_key: IdempotencyKey = None,
) -> JobInfo:
    """Create a job: a big batch that is made beside other requests and survives restarts of the server."""
    settings = parts.settings
    wanted = await read_json(
        request, JobRequest, limit=settings.body_bytes, timeout_s=settings.body_timeout_s
    )
    with parts.quotas.hold(caller, wanted.n):
        job, created = await parts.jobs.create(wanted, caller=caller, idempotency_key=idempotency_key)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"/jobs/{job.id}"
    return _info(job)


@router.get("/jobs", response_model_exclude_none=True)
async def list_jobs(parts: AppParts, caller: RequestCaller) -> JobList:
    """List the caller's jobs, newest first; an admin sees everybody's."""
    return JobList(jobs=[_info(job) for job in parts.jobs.seen_by(caller)])


@router.get(
    "/jobs/{job_id}",
    response_model_exclude_none=True,
    responses=document(errors.InvalidInputError, errors.UnknownJobError),
)
async def show_job(job: OwnJob) -> JobInfo:
    """Show how far a job is."""
    return _info(job)


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    responses=document(errors.InvalidInputError, errors.UnknownJobError, errors.StorageError),
)
async def delete_job(job: OwnJob, parts: AppParts) -> None:
    """Cancel a job if it runs, and remove it with all its images."""
    await parts.jobs.remove(job)


@router.get(
    "/jobs/{job_id}/result",
    response_class=FileResponse,
    responses={
        **RESULT,
        **document(
            errors.InvalidInputError, errors.UnknownJobError, errors.JobConflictError, errors.StorageError
        ),
    },
)
async def get_result(job: OwnJob, parts: AppParts) -> FileResponse:
    """Download the images of a finished job."""
    plan = job.plan
    name = f"{plan.model}-{plan.version}-{job.id}.{plan.format}"
    return FileResponse(parts.jobs.result(job), media_type=plan.format.media_type, filename=name)


@router.post(
    "/jobs/{job_id}/resume",
    status_code=202,
    response_model_exclude_none=True,
    responses=document(
        errors.InvalidInputError, errors.UnknownJobError, errors.JobConflictError, errors.StorageError
    ),
)
async def resume_job(job: OwnJob, parts: AppParts) -> JobInfo:
    """Go on with a job that failed; what was made is not made again."""
    await parts.jobs.resume(job)
    return _info(job)


def _info(job: Job) -> JobInfo:
    plan = job.plan
    rest = {"class_id": None, "class_name": None}
    sampling = {name: getattr(plan.request, name) for name in Parameters.model_fields.keys() - rest.keys()}
    return JobInfo(
        id=job.id,
        state=job.state,
        reason=job.reason,
        done=job.done,
        total=plan.n,
        images_per_second=job.images_per_second if job.state is JobState.RUNNING else None,
        seconds_left=job.seconds_left,
        model=plan.model,
        version=plan.version,
        parameters=Parameters(**sampling),
        classes=plan.wanted_classes
        if not isinstance(plan.wanted_classes, tuple)
        else list(plan.wanted_classes),
        seed=plan.request.seed,
        format=plan.format,
        created=datetime.fromtimestamp(job.created, UTC),
        finished=None if job.finished is None else datetime.fromtimestamp(job.finished, UTC),
        result=f"/jobs/{job.id}/result" if job.state is JobState.FINISHED else None,
        result_bytes=job.result_bytes,
    )
