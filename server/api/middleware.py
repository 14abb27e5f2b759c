"""What happens to every HTTP request: an id, a line in the log, and no stack trace for the client."""

from __future__ import annotations

import re
import time

import structlog
from opentelemetry import trace
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.problems import problem_response
from server.request_id import REQUEST_ID, draw_request_id

CLEAN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
QUIET_PATHS = ("/livez", "/readyz", "/metrics", "/load")

log = structlog.get_logger("server.access")


class RequestContext:
    """ASGI middleware around the whole app.

    A client's own `X-Request-ID` is kept if it is clean; the id is in the answer's header, in problems and in
    every log line that the request causes.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        trace.get_current_span().set_attribute("ddo.request_id", request_id)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        started = time.perf_counter()
        token = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            log.exception("unexpected error", path=scope["path"])
            if status:
                raise
            await problem_response(error, Request(scope))(scope, receive, send_with_id)
        finally:
            level = log.debug if scope["path"] in QUIET_PATHS else log.info
            milliseconds = round(1000 * (time.perf_counter() - started), 3)
            level("request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds)
            REQUEST_ID.reset(token)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and CLEAN_ID.fullmatch(value):
            return str(value, "ascii")
    return draw_request_id()
