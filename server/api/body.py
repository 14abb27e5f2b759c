"""Reading a request's body: bounded in bytes and time, JSON whatever curl calls it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request

from server.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    ClientDisconnectedError,
    FieldError,
    InvalidInputError,
    UnsupportedMediaTypeError,
)
from server.interruption import TimeLimit

# What clients send along with a JSON body that they did not label: curl -d, fetch, wget.
UNLABELLED = ("", "application/x-www-form-urlencoded", "text/plain", "application/octet-stream")

M = TypeVar("M", bound=BaseModel)


async def read_json(request: Request, schema: type[M], *, limit: int, timeout_s: float) -> M:
    """Read and validate a request's body.

    Args:
        request: nothing of it has been read yet.
        schema: what the JSON has to be.
        limit: most bytes that are read.
        timeout_s: seconds in which all of them have to arrive.

    Raises:
        RejectedError: the body is labelled as something other than JSON, too large, too slow or not valid.
        ClientDisconnectedError: the client left in the middle.
    """
    _check_media_type(request.headers.get("content-type", ""))
    late = BodyTimeoutError(f"the request body did not arrive within {timeout_s:g} s")
    try:
        with TimeLimit(timeout_s, late):
            body = await _read(request, limit)
    except ClientDisconnect:
        raise ClientDisconnectedError("the client left before its request was complete") from None
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise InvalidInputError([_field_error(entry, schema) for entry in error.errors()]) from None


def _check_media_type(header: str) -> None:
    media_type = header.partition(";")[0].strip().lower()
    if media_type not in UNLABELLED and media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaTypeError(f"send JSON, with content type application/json; not {media_type}")


async def _read(request: Request, limit: int) -> bytes:
    too_large = BodyTooLargeError(f"the request body has more than {limit} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _known_fields(schema: type[BaseModel], path: Sequence[str]) -> list[str]:
    for name in path:
        schema = cast(type[BaseModel], schema.model_fields[name].annotation)
    return list(schema.model_fields)


def _field_error(entry: ErrorDetails, schema: type[BaseModel]) -> FieldError:
    field = ".".join(str(part) for part in entry["loc"]) or "body"
    if entry["type"] == "extra_forbidden":
        *above, unknown = (str(part) for part in entry["loc"])
        known = _known_fields(schema, above)
        close = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known fields: {', '.join(known)}"
        return FieldError(field, f"unknown field; {hint}")
    return FieldError(field, entry["msg"])
