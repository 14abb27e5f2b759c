"""Routes about requests in progress."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from server import errors
from server.api.guard import RequestCaller
from server.api.parts import AppParts
from server.api.problems import document

router = APIRouter()


@router.delete(
    "/requests/{request_id}",
    tags=["images"],
    status_code=204,
    responses=document(errors.InvalidInputError, errors.UnknownRequestError),
)
async def cancel_request(
    request_id: Annotated[
        str,
        Path(
            max_length=64, description="As in the X-Request-ID that the client sent, or its `queued` event."
        ),
    ],
    parts: AppParts,
    caller: RequestCaller,
) -> None:
    """Cancel a request in progress: nothing more is computed for it, and its client gets a problem."""
    parts.running.cancel(request_id, caller)
