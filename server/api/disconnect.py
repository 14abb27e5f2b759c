"""A client that leaves stops costing compute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.types import Receive

from server.errors import ClientDisconnectedError

T = TypeVar("T")


async def unless_disconnected(receive: Receive, work: Awaitable[T]) -> T:
    """Await `work`; cancel it when the client closes the connection.

    Args:
        receive: the ASGI channel of a request whose body has been read.
        work: what makes the answer; it is awaited in the current task.

    Raises:
        ClientDisconnectedError: the client left first.
    """
    task = asyncio.current_task()
    assert task is not None, "coroutines run in tasks"
    watcher = asyncio.create_task(_disconnected(receive))
    working, left = True, False

    def leave(_: asyncio.Task[None]) -> None:
        nonlocal left
        if working:
            left = True
            task.cancel()

    watcher.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if left and not task.uncancel():
            raise ClientDisconnectedError("the client closed the connection") from None
        raise
    finally:
        working = False
        watcher.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
