"""Requests in progress by their ids, so that they can be cancelled."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from server.access.caller import Caller
from server.errors import RequestCancelledError, UnknownRequestError
from server.interruption import Interruption
from server.request_id import REQUEST_ID

T = TypeVar("T")


class Running:
    """Knows every request in progress. It belongs to the event loop's thread."""

    def __init__(self) -> None:
        """Begin with none."""
        self._requests: dict[str, dict[Interruption, Caller]] = {}

    async def run(self, caller: Caller, work: Awaitable[T]) -> T:
        """Await `work`, which may be cancelled by the id of the request that it belongs to.

        The id is the one that logs have.

        Raises:
            RequestCancelledError: it was cancelled.
        """
        request_id = REQUEST_ID.get()
        requests = self._requests.setdefault(request_id, {})
        with Interruption() as request:
            requests[request] = caller
            try:
                return await work
            finally:
                del requests[request]
                if not requests:
                    del self._requests[request_id]

    def cancel(self, request_id: str, caller: Caller) -> None:
        """Cancel every request of this id that is the caller's own; an admin's are all.

        Raises:
            UnknownRequestError: there is none.
        """
        found = [
            request
            for request, owner in self._requests.get(request_id, {}).items()
            if caller.admin or owner.id == caller.id
        ]
        if not found:
            raise UnknownRequestError(f"no request {request_id} is in progress; it may have been answered")
        for request in found:
            request.interrupt(RequestCancelledError(f"request {request_id} was cancelled by DELETE"))
