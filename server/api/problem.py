"""What goes over the wire when a request is refused or fails (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One field of the request and what is wrong with it."""

    field: str = Field(examples=["class_id"])
    message: str = Field(examples=["must be 0 to 255"])


class Problem(BaseModel):
    """A refusal or a failure, as RFC 9457 describes it."""

    type: str = Field(
        description="Stable name of the kind of problem.", examples=["urn:ddo-serve:invalid-input"]
    )
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status code.", examples=[422])
    detail: str = Field(description="What is wrong this time, and what to do.")
    instance: str = Field(description="Path of the request.", examples=["/generate"])
    request_id: str = Field(description="Id of the request, as in the X-Request-ID header and the logs.")
    errors: list[FieldProblem] | None = Field(default=None, description="The fields at fault, if any.")
