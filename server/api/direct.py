"""The short way of a request for images: past all that FastAPI does for other requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.guard import require_key_of
from server.api.problems import problem_response
from server.errors import ServeError

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Direct:
    """ASGI middleware that answers some routes itself, for callers with a key.

    FastAPI documents these routes and could answer them too, but matching a route, looking up dependencies
    and its inner middleware take about as long as all else that the server does for a small image.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[tuple[str, str], Endpoint]) -> None:
        """Wrap `app`; `routes` gives functions by method and path."""
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of the server."""
        endpoint = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            await require_key_of(request)
            response = await endpoint(request)
        except ServeError as error:
            response = problem_response(error, request)
        await response(scope, receive, send)
