"""Where no key is asked for, a page in a browser of this machine could call the server in its user's name.

Two ways lead there. A page of any site may post to `localhost`; the browser then tells the page's origin. Or
its site's name may be turned to point at this machine (DNS rebinding); the browser then sends that name as
Host.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.access.door import is_loopback
from server.api.problems import problem_response
from server.errors import ForbiddenError

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class OwnPagesOnly:
    """ASGI middleware that refuses requests which a strange site has a browser send."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str]) -> None:
        """Wrap `app`.

        Args:
            app: what is served.
            hosts: names by which the server may be reached beside this machine's; `*` is every name.
            origins: origins whose pages may do more than read.
        """
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._origins = frozenset(origins)
        self._known = lru_cache(maxsize=64)(self._is_known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of the server."""
        error = self._error(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(error, Request(scope))(scope, receive, send)

    def _error(self, scope: Scope) -> ForbiddenError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._known(host):
            return ForbiddenError(f"the host {host!r} is not one of this server's; DDO_ACCESS__HOSTS adds it")
        origin = headers.get("origin")
        if origin is None or scope["method"] in SAFE_METHODS or origin in self._origins:
            return None
        if urlsplit(origin).netloc == host:
            return None
        return ForbiddenError(f"pages of {origin} may not do this; DDO_ACCESS__CORS_ORIGINS lets them")

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return "*" in self._hosts or name in self._hosts or is_loopback(name)
