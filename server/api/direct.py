"""The short way of a request for images: past all that FastAPI does for other requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from fastapi import Request, Response
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.guard import require_key_of
from server.api.problems import problem_response
from server.errors import ServeError

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Direct:
    """An ASGI app around another that answers some routes itself, for callers with a key.

    FastAPI documents these routes and could answer them too, but its own middleware, matching a route and
    looking up dependencies take about as long as all else that the server does for a small image.
    """

    def __init__(
        self, app: ASGIApp, routes: Mapping[tuple[str, str], Endpoint], middleware: Sequence[Middleware]
    ) -> None:
        """Wrap `app`.

        Args:
            app: answers all other requests; it has the middleware already.
            routes: functions by method and path.
            middleware: what requests pass before these functions, the outermost first.
        """
        self._app = app
        self._routes = routes
        self._short: ASGIApp = self._answer
        for each in reversed(middleware):
            self._short = each.cls(self._short, *each.args, **each.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of the server."""
        short = scope["type"] == "http" and (scope["method"], scope["path"]) in self._routes
        await (self._short if short else self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            await require_key_of(request)
            response = await self._routes[scope["method"], scope["path"]](request)
        except ServeError as error:
            response = problem_response(error, request)
        await response(scope, receive, send)
