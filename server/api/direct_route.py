"""Routes that cost little: what FastAPI looks up for each request, they read themselves."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from server.api.guard import require_key_of


class DirectRoute(APIRoute):
    """A route for callers with a key, whose function takes the request and returns the response.

    FastAPI documents it as any other, but looks up neither parameters nor dependencies when it is called,
    which takes longer than all else that the server does for an image. The key is asked for here.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint

        async def handle(request: Request) -> Response:
            await require_key_of(request)
            return await endpoint(request)

        return handle
