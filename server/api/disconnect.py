"""A client that leaves stops costing compute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive

from server.errors import ClientDisconnectedError
from server.interruption import Interruption

EXTENSION = "ddo.disconnect"
"""The ASGI extension of a server that calls its `callbacks`, a set, once the client's connection is lost."""

T = TypeVar("T")


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Await `work`; cancel it when the client closes the connection.

    Args:
        request: whose body has been read.
        work: what makes the answer; it is awaited in the current task.

    Raises:
        ClientDisconnectedError: the client left first.
    """
    with Interruption() as work_in_progress:

        def leave(*_: Any) -> None:
            work_in_progress.interrupt(ClientDisconnectedError("the client closed the connection"))

        forget = _watch(request, leave)
        try:
            return await work
        finally:
            forget()


def _watch(request: Request, leave: Callable[..., None]) -> Callable[[], Any]:
    """Have `leave` called when the client leaves; return what ends that."""
    extension = request.scope.get("extensions", {}).get(EXTENSION)
    if extension is None:  # A server that is not ours: a task of its own has to wait for the message.
        watcher = asyncio.create_task(_disconnected(request.receive))
        watcher.add_done_callback(leave)
        return watcher.cancel
    callbacks: set[Callable[..., None]] = extension["callbacks"]
    callbacks.add(leave)
    return lambda: callbacks.discard(leave)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
