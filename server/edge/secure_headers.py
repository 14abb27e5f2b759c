"""Headers that keep browsers from doing with an answer what it is not for."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# An answer's own header wins: a page says what it needs, an image may say that it can be kept.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
TLS_HEADERS = {"Strict-Transport-Security": "max-age=31536000"}

_PLAIN = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_TLS = [*_PLAIN, *((name.lower().encode(), value.encode()) for name, value in TLS_HEADERS.items())]


class SecureHeaders:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = _TLS if scope["scheme"] == "https" else _PLAIN

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", [])
                names = {name for name, _ in own}
                message["headers"] = [*own, *(header for header in wanted if header[0] not in names)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
