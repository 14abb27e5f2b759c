"""A client that leaves stops costing compute."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from server.errors import ClientDisconnectedError

T = TypeVar("T")


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; cancel it when the client closes the connection.

    Args:
        receive: the ASGI channel of a request whose body has been read.
        work: what makes the answer.

    Raises:
        ClientDisconnectedError: the client left first.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        # The rows go first: what an error costs comes later, or the last of many clients' would wait for it.
        task.cancel()
        await asyncio.wait({task})
        raise ClientDisconnectedError("the client closed the connection")
    finally:
        task.cancel()
        watcher.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
