"""Why a client got no images: one type for each thing that a caller may want to do about it."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from pydantic import ValidationError

from server.api.job_schemas import JobInfo
from server.api.problem import Problem

DETAIL_CHARACTERS = 200


class ClientError(Exception):
    """Anything that a client raises."""


class UnreachableError(ClientError):
    """No server answered, or it stopped in the middle of its answer."""


class RefusedError(ClientError):
    """The server declined or failed the request.

    Attributes:
        problem: what it said.
        retry_after_s: seconds after which it asks to be tried again; None: it does not say.
    """

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        """Say what the problem's detail says."""
        super().__init__(problem.detail)
        self.problem = problem
        self.retry_after_s = retry_after_s


class InvalidRequestError(RefusedError):
    """The request cannot be served as it is; `problem.errors` names the fields at fault."""


class UnauthenticatedError(RefusedError):
    """An API key is needed, or this one is not known."""


class ForbiddenError(RefusedError):
    """This caller may not do this."""


class NotFoundError(RefusedError):
    """There is no such model, version or job."""


class ConflictError(RefusedError):
    """What the server does now does not allow this."""


class BusyError(RefusedError):
    """The server, or this key, has too much to do, or the deadline would be missed."""


class UnavailableError(RefusedError):
    """The model is not ready, or the server shuts down."""


class TooLateError(RefusedError):
    """The deadline passed before the images were finished."""


class ServerFailureError(RefusedError):
    """The server failed."""


class JobFailedError(ClientError):
    """A job failed.

    Attributes:
        job: how far it came, and why it failed; `resume_job` lets it go on.
    """

    def __init__(self, job: JobInfo) -> None:
        """Say why it failed."""
        super().__init__(f"job {job.id} failed after {job.done} of {job.total} images: {job.reason}")
        self.job = job


class JobTimeoutError(ClientError):
    """A job was not finished in the time that the caller gave it; it goes on."""


BY_STATUS: Mapping[int, type[RefusedError]] = {
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    429: BusyError,
    503: UnavailableError,
    504: TooLateError,
}


def error_of(response: httpx.Response) -> RefusedError:
    """Return the error that an answer, read to its end, tells."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # Something in between answered.
        problem = Problem(
            type="about:blank",
            title=response.reason_phrase,
            status=response.status_code,
            detail=f"{response.status_code} {response.reason_phrase}: {response.text[:DETAIL_CHARACTERS]}",
            instance=response.request.url.path,
            request_id=response.headers.get("X-Request-ID", ""),
        )
    return refusal(problem, _seconds(response.headers.get("Retry-After", "")))


def refusal(problem: Problem, retry_after_s: float | None = None) -> RefusedError:
    """Return the error of a problem, by its status."""
    failed = problem.status >= httpx.codes.INTERNAL_SERVER_ERROR
    kind = BY_STATUS.get(problem.status, ServerFailureError if failed else InvalidRequestError)
    return kind(problem, retry_after_s)


def _seconds(retry_after: str) -> float | None:
    return float(retry_after) if retry_after.isascii() and retry_after.isdecimal() else None
