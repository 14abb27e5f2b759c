"""An HTTP request on its way from a router to a replica."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Scope

CARRIED = (
    "type",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, whole.

    Attributes:
        scope: of ASGI, as far as it is data.
        body: all of it.
        avoid: replicas that have refused it.
        images: that it asks for, as far as that is known.
    """

    scope: dict[str, Any]
    body: bytes
    avoid: frozenset[str] = frozenset()
    images: int = 1

    @classmethod
    def of(cls, scope: Scope, body: bytes, images: int = 1) -> Call:
        """Take a request over from a server."""
        carried = {name: scope[name] for name in CARRIED if name in scope}
        addresses = {name: scope.get(name) for name in ("client", "server")}
        return cls(carried | addresses, body, images=images)

    def without(self, replica: str) -> Call:
        """Return the call that does not go to a replica any more, unless there is no other."""
        return replace(self, avoid=self.avoid | {replica})
