"""Requests in progress by their ids, so that they can be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from server.access.caller import Caller
from server.errors import RequestCancelledError, UnknownRequestError

T = TypeVar("T")


class Running:
    """Knows the task of every request in progress. It belongs to the event loop's thread."""

    def __init__(self) -> None:
        """Begin with none."""
        self._tasks: dict[str, dict[asyncio.Task[Any], Caller]] = {}
        self._cancelled: set[asyncio.Task[Any]] = set()

    async def run(self, caller: Caller, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, which may be cancelled by the id of the request that it belongs to.

        The id is the one that logs have. The current task runs nothing else.

        Raises:
            RequestCancelledError: it was cancelled.
        """
        request_id: str = structlog.contextvars.get_contextvars()["request_id"]
        task = asyncio.current_task()
        assert task is not None, "coroutines run in tasks"
        tasks = self._tasks.setdefault(request_id, {})
        tasks[task] = caller
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._cancelled and not task.uncancel():
                raise RequestCancelledError(f"request {request_id} was cancelled by DELETE") from None
            raise
        finally:
            self._cancelled.discard(task)
            del tasks[task]
            if not tasks:
                del self._tasks[request_id]

    def cancel(self, request_id: str, caller: Caller) -> None:
        """Cancel every request of this id that is the caller's own; an admin's are all.

        Raises:
            UnknownRequestError: there is none.
        """
        found = [
            task
            for task, owner in self._tasks.get(request_id, {}).items()
            if caller.admin or owner.id == caller.id
        ]
        if not found:
            raise UnknownRequestError(f"no request {request_id} is in progress; it may have been answered")
        for task in found:
            if task not in self._cancelled:
                self._cancelled.add(task)
                task.cancel()
