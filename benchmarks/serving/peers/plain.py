"""Dynamic batching by whole requests, as one writes it: a queue, a thread, and a wait for more rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serving.peers.model import WAIT_S, PeerSettings, RequestModel

Waiting = asyncio.Queue[tuple[dict[str, Any], asyncio.Future[dict[str, Any]]]]


class Wanted(BaseModel):
    """An image."""

    class_id: int
    seed: int
    steps: int


def create_app(model: RequestModel) -> FastAPI:
    """Return an app that batches requests for `model`."""
    waiting: Waiting = asyncio.Queue()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_serve(model, waiting))
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/generate")
    async def generate(wanted: Wanted) -> dict[str, Any]:
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        await waiting.put((wanted.model_dump(), future))
        return await future

    return app


async def _serve(model: RequestModel, waiting: Waiting) -> None:
    while True:
        batch = [await waiting.get()]
        end = asyncio.get_running_loop().time() + WAIT_S
        while len(batch) < model.max_rows:
            try:
                async with asyncio.timeout_at(end):
                    batch.append(await waiting.get())
            except TimeoutError:
                break
        answers = await asyncio.to_thread(model.generate, [body for body, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


if __name__ == "__main__":
    settings = PeerSettings.from_environment()
    uvicorn.run(create_app(settings.model()), port=settings.port, log_level="warning")
