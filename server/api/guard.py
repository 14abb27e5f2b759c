"""Dependencies that let a request in: with a key, or an admin's, where the server asks for keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from server.access.caller import ANONYMOUS, Caller
from server.api.parts import AppParts, Parts
from server.api.problems import kind_of
from server.errors import ForbiddenError, RejectedError, UnauthenticatedError

_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="An API key of this server.")
_HEADER = APIKeyHeader(
    name="X-API-Key", auto_error=False, scheme_name="header", description="An API key of this server."
)


async def require_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    header: Annotated[str | None, Depends(_HEADER)],
) -> Caller:
    """Return who sends the request, kept as `request.state.caller` too.

    Raises:
        UnauthenticatedError: a key is needed, and none or a wrong one came.
    """
    # Not a dependency: FastAPI takes longer to look one up than all of this takes.
    parts: Parts = request.app.state.parts
    try:
        caller = _caller(request, parts, bearer, header)
    except RejectedError as error:
        parts.metrics.rejections.labels(kind_of(error).slug).inc()
        raise
    request.state.caller = caller
    return caller


async def require_key_of(request: Request) -> Caller:
    """Do what `require_key` does, for a request of which FastAPI has looked up nothing."""
    parts: Parts = request.app.state.parts
    if not parts.door.guarded:
        request.state.caller = ANONYMOUS
        return ANONYMOUS
    return await require_key(request, await _BEARER(request), await _HEADER(request))


def _caller(
    request: Request, parts: Parts, bearer: HTTPAuthorizationCredentials | None, header: str | None
) -> Caller:
    """Return whose keys these are. Of two keys none may be wrong: which one counts is not for us to guess."""
    sent: list[str | None] = [header] if header is not None else []
    if "authorization" in request.headers:
        sent.append(bearer.credentials if bearer else "")
    callers = [parts.door.caller(key) for key in sent or [None]]
    if len(set(callers)) > 1:
        raise UnauthenticatedError("the request holds two different API keys", wrong_key=True)
    return callers[0]


RequestCaller = Annotated[Caller, Depends(require_key)]


async def require_admin(caller: RequestCaller, parts: AppParts) -> Caller:
    """Return the admin who sends the request.

    Raises:
        UnauthenticatedError: a key is needed, and none or a wrong one came.
        ForbiddenError: the key is not an admin's.
    """
    if not caller.admin:
        error = ForbiddenError("this needs an admin's key: one made with `key new --admin`")
        parts.metrics.rejections.labels(kind_of(error).slug).inc()
        raise error
    return caller


async def require_metrics(
    request: Request,
    parts: AppParts,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    header: Annotated[str | None, Depends(_HEADER)],
) -> None:
    """Let whoever may read the metrics pass: everybody if the settings say so, else who has a key.

    Raises:
        UnauthenticatedError: a key is needed, and none or a wrong one came.
    """
    if not parts.settings.access.open_metrics:
        await require_key(request, bearer, header)
