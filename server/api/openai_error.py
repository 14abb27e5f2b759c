"""Problems in the shape that OpenAI's clients read, under `/v1`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from pydantic import BaseModel, Field

from server.api.problem import Problem

PREFIX = "/v1/"

# What OpenAI calls the problems that it has too; the others keep their own names.
CODES: Mapping[str, str] = {
    "invalid-input": "invalid_value",
    "unknown-model": "model_not_found",
    "unknown-version": "model_not_found",
    "unauthenticated": "invalid_api_key",
    "rate-limit": "rate_limit_exceeded",
}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="What is wrong this time, and what to do.")
    type: str = Field(
        description="`invalid_request_error`, `rate_limit_error` or `server_error`.",
        examples=["invalid_request_error"],
    )
    param: str | None = Field(description="The field at fault, if one alone is.", examples=["prompt"])
    code: str = Field(description="Stable name of the kind of problem.", examples=["invalid_value"])


class ErrorAnswer(BaseModel):
    """A refusal or a failure, as OpenAI's API tells it."""

    error: ErrorDetail


def status_of(status: int) -> int:
    """Return the status that OpenAI's API has for one of ours: a bad value is 400 there."""
    return HTTPStatus.BAD_REQUEST.value if status == HTTPStatus.UNPROCESSABLE_ENTITY else status


def error_answer(problem: Problem) -> ErrorAnswer:
    """Tell a problem in OpenAI's way."""
    fields = [entry.field for entry in problem.errors or ()]
    slug = problem.type.removeprefix("urn:ddo-serve:")
    own = slug.replace("-", "_") if slug != problem.type else problem.title.lower().replace(" ", "_")
    return ErrorAnswer(
        error=ErrorDetail(
            message=problem.detail,
            type=_type(problem.status),
            param=fields[0] if len(fields) == 1 and fields != ["body"] else None,
            code=CODES.get(slug, own),
        )
    )


def _type(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
