"""From errors to `application/problem+json` answers (RFC 9457): the one mapping to HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from server import errors
from server.api.openai_error import PREFIX, error_answer, status_of
from server.api.problem import MEDIA_TYPE, FieldProblem, Problem
from server.request_id import REQUEST_ID


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: what clients can tell apart without reading the detail."""

    status: int
    slug: str
    title: str


KINDS: Mapping[type[Exception], Kind] = {
    errors.InvalidInputError: Kind(422, "invalid-input", "The request cannot be made into an image"),
    errors.UnauthenticatedError: Kind(401, "unauthenticated", "An API key is needed"),
    errors.ForbiddenError: Kind(403, "forbidden", "Not allowed"),
    errors.UnknownModelError: Kind(404, "unknown-model", "No such model"),
    errors.UnknownVersionError: Kind(404, "unknown-version", "No such version of the model"),
    errors.VersionRefusedError: Kind(409, "version-refused", "The version cannot be served"),
    errors.ConflictError: Kind(409, "conflict", "What is served now does not allow this"),
    errors.MalformedRequestError: Kind(400, "malformed-request", "The request cannot be read"),
    errors.HeadTooLargeError: Kind(431, "head-too-large", "The request's headers are too large"),
    errors.HeadTimeoutError: Kind(408, "head-timeout", "The request's headers did not arrive in time"),
    errors.TooManyConnectionsError: Kind(503, "too-many-connections", "The server is busy"),
    errors.BodyTooLargeError: Kind(413, "body-too-large", "The request body is too large"),
    errors.BodyTimeoutError: Kind(408, "body-timeout", "The request body did not arrive in time"),
    errors.UnsupportedMediaTypeError: Kind(415, "unsupported-media-type", "The request body is not JSON"),
    errors.NotAcceptableError: Kind(406, "not-acceptable", "No answer in an acceptable form"),
    errors.UnknownJobError: Kind(404, "unknown-job", "No such job"),
    errors.JobConflictError: Kind(409, "job-conflict", "Not in this state of the job"),
    errors.IdempotencyError: Kind(422, "idempotency-key-reused", "The key belongs to another request"),
    errors.StorageError: Kind(507, "storage", "The jobs' storage cannot take it"),
    errors.QueueFullError: Kind(429, "queue-full", "The server is busy"),
    errors.CallerBusyError: Kind(429, "caller-busy", "Too many requests of this key in progress"),
    errors.RateLimitError: Kind(429, "rate-limit", "Too many images for this key"),
    errors.TooLateError: Kind(429, "too-late", "The deadline would be missed"),
    errors.RequestCancelledError: Kind(409, "cancelled", "The request was cancelled"),
    errors.UnknownRequestError: Kind(404, "unknown-request", "No such request in progress"),
    errors.NotReadyError: Kind(503, "not-ready", "The model is not ready"),
    errors.NoReplicaError: Kind(503, "no-replica", "No replica can answer"),
    errors.NotInClusterError: Kind(501, "not-in-cluster", "Clusters do not serve this"),
    errors.DrainingError: Kind(503, "draining", "The server is shutting down"),
    errors.DeadlineError: Kind(504, "deadline", "The deadline passed"),
    errors.EngineFailureError: Kind(500, "engine-failure", "The engine failed"),
    errors.ClientDisconnectedError: Kind(499, "client-disconnected", "The client left"),
}
GENERATION_ERRORS: tuple[type[errors.ServeError], ...] = (
    errors.InvalidInputError,
    errors.UnknownModelError,
    errors.UnknownVersionError,
    errors.BodyTimeoutError,
    errors.BodyTooLargeError,
    errors.UnsupportedMediaTypeError,
    errors.QueueFullError,
    errors.TooLateError,
    errors.CallerBusyError,
    errors.RateLimitError,
    errors.NotReadyError,
    errors.DrainingError,
    errors.DeadlineError,
    errors.EngineFailureError,
    errors.RequestCancelledError,
)
"""What may come of a request for images, whatever interface it came by."""
INTERNAL = Kind(500, "internal-error", "Internal server error")


def kind_of(error: Exception) -> Kind:
    """Return an error's kind; one that nobody foresaw is internal."""
    if isinstance(error, HTTPException):
        return _http_kind(error.status_code)
    return KINDS.get(type(error), INTERNAL)


def problem_of(error: Exception, request: Request) -> Problem:
    """Describe a request's error to its client. What an unforeseen error says stays in the logs."""
    kind = kind_of(error)
    return Problem(
        type="about:blank" if isinstance(error, HTTPException) else f"urn:ddo-serve:{kind.slug}",
        title=kind.title,
        status=kind.status,
        detail=_detail(error, request),
        instance=request.url.path,
        request_id=REQUEST_ID.get(),
        errors=[FieldProblem(field=entry.field, message=entry.message) for entry in error.errors]
        if isinstance(error, errors.InvalidInputError)
        else None,
    )


def problem_response(error: Exception, request: Request) -> Response:
    """Answer a request with its error."""
    problem = problem_of(error, request)
    headers = _headers(error) | _allow(error, request)
    if request.url.path.startswith(PREFIX):
        answer = error_answer(problem).model_dump_json()
        return Response(answer, status_of(problem.status), headers, media_type="application/json")
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, problem.status, headers, media_type=MEDIA_TYPE)


def connection_problem(error: errors.RejectedError) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an answer to what did not become a request."""
    kind = kind_of(error)
    body = Problem(
        type=f"urn:ddo-serve:{kind.slug}",
        title=kind.title,
        status=kind.status,
        detail=str(error),
        instance="",
        request_id="",
    ).model_dump_json(exclude_none=True)
    framing = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body.encode())), "Connection": "close"}
    return kind.status, framing | _headers(error), body.encode()


async def handle(request: Request, error: Exception) -> Response:
    """Exception handler of the app."""
    if isinstance(error, RequestValidationError):
        error = errors.InvalidInputError(
            [errors.FieldError(str(entry["loc"][-1]), entry["msg"]) for entry in error.errors()]
        )
    return problem_response(error, request)


def document(*kinds: type[errors.ServeError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of an operation that may raise these errors."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    titles: dict[int, list[str]] = {INTERNAL.status: [INTERNAL.title]}
    retries: set[int] = set()
    for error in kinds:
        titles.setdefault(KINDS[error].status, []).append(KINDS[error].title)
        if issubclass(error, errors.RetryLaterError):
            retries.add(KINDS[error].status)
    return {
        status: {"description": "; ".join(words), "content": content}
        | ({"headers": {"Retry-After": _RETRY_AFTER}} if status in retries else {})
        for status, words in sorted(titles.items())
    }


def document_openai(*kinds: type[errors.ServeError]) -> dict[int | str, dict[str, Any]]:
    """Return what `document` does, for an operation under `/v1`, whose errors have OpenAI's shape."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    return {
        status_of(int(status)): {**response, "content": content}
        for status, response in document(*kinds).items()
    }


_RETRY_AFTER = {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}


def _http_kind(status: int) -> Kind:
    phrase = HTTPStatus(status).phrase
    return Kind(status, phrase.lower().replace(" ", "-"), phrase)


def _detail(error: Exception, request: Request) -> str:
    if isinstance(error, errors.ServeError):
        return str(error)
    if isinstance(error, HTTPException):
        return f"{request.method} {request.url.path}: {error.detail}; see /docs for what there is"
    return "an unexpected error; the server's log has it under this request id"


def _headers(error: Exception) -> dict[str, str]:
    if isinstance(error, errors.RetryLaterError) and math.isfinite(error.retry_after_s):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    if isinstance(error, errors.UnauthenticatedError):
        return {"WWW-Authenticate": 'Bearer realm="ddo-serve"' + ', error="invalid_token"' * error.wrong_key}
    if isinstance(error, errors.BodyTimeoutError):
        return {"Connection": "close"}  # What may still come is no new request.
    if isinstance(error, HTTPException):
        return dict(error.headers or {})
    return {}


def _allow(error: Exception, request: Request) -> dict[str, str]:
    """Return an Allow header with all methods of the path: Starlette's has those of one route of it."""
    refused = isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    if not refused or "route" not in request.scope:
        return {}
    operations = request.app.openapi()["paths"].get(request.scope["route"].path, {})
    return {"Allow": ", ".join(method.upper() for method in operations)} if operations else {}
