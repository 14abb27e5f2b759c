"""A replica: the whole server around the engines of one device, but for the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

from fastapi import FastAPI
from ray import serve
from starlette.types import Message

from server.api.parts import Parts
from server.ray.call import Call
from server.settings import Settings

LOOK_S = 0.1
"""Seconds between two looks at whether the models are loaded."""

MakeApp = Callable[[Settings], FastAPI]


class Replica:
    """Answers requests with an app of its own. Ray calls every method on one event loop.

    Args:
        make_app: puts the app together.
        settings: of the app.
    """

    def __init__(self, make_app: MakeApp, settings: Settings) -> None:
        self._app = make_app(settings)
        self._parts: Parts = self._app.state.parts
        self._life = AsyncExitStack()
        self._start: asyncio.Task[None] | None = None
        self._id: str = serve.get_replica_context().replica_id.unique_id

    async def check_health(self) -> None:
        """Tell Ray whether requests may come: a replica gets none before its models are loaded.

        Raises:
            RuntimeError: the engine thread has ended; Ray then starts another replica.
        """
        await self._started()
        if not self._parts.worker.alive:
            raise RuntimeError("the engine thread has ended")

    async def answer(self, call: Call) -> AsyncIterator[Message | str]:
        """Yield this replica's id, then what the app sends, message by message.

        Whoever stops reading is a client that left: its rows are dropped.
        """
        await self._started()
        yield self._id
        sent: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=1)
        received = iter([{"type": "http.request", "body": call.body, "more_body": False}])
        left = asyncio.Event()

        async def receive() -> Message:
            for message in received:
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        async def run() -> None:
            try:
                await self._app(dict(call.scope), receive, sent.put)
            finally:
                if not left.is_set():
                    await sent.put(None)

        task = asyncio.create_task(run())
        try:
            while (message := await sent.get()) is not None:
                yield message
            await task
        finally:
            left.set()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray how many engine seconds are pending."""
        return {"pending_s": self._parts.worker.backlog_s()}

    async def __del__(self) -> None:
        """Answer what was accepted, then end."""
        self._parts.lifecycle.drain()
        while not self._parts.lifecycle.drained:
            await asyncio.sleep(LOOK_S)
        await self._life.aclose()

    async def _started(self) -> None:
        """Wait until the models are loaded; the first call starts that."""
        if self._start is None:
            self._start = asyncio.create_task(self._load())
        await asyncio.shield(self._start)

    async def _load(self) -> None:
        await self._life.enter_async_context(self._app.router.lifespan_context(self._app))
        lifecycle = self._parts.lifecycle
        while not lifecycle.ready:
            if any(model.failed for model in self._parts.catalogue.default_versions):
                raise RuntimeError("; ".join(lifecycle.reasons()))
            await asyncio.sleep(LOOK_S)
