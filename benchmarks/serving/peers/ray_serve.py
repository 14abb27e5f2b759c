"""Ray Serve."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.serving.peers.model import PeerSettings

WAIT_S = 0.03
"""It forms batches before the model is free: with a shorter wait they stay smaller still."""


@serve.deployment(max_ongoing_requests=1000)
class Model:
    """Batches of requests, as Ray Serve makes them."""

    def __init__(self, settings: PeerSettings) -> None:
        """Load the model in Ray's worker."""
        self.model = settings.model()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=WAIT_S)
    async def make(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make the images of a batch, beside the event loop."""
        return await asyncio.to_thread(self.model.generate, bodies)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answer one request."""
        answer: dict[str, Any] = await self.make(await request.json())
        return answer


if __name__ == "__main__":
    settings = PeerSettings.from_environment()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": settings.port})
    application = Model.bind(settings)  # type: ignore[attr-defined] # the decorator made it a deployment
    serve.run(application, route_prefix="/generate", blocking=True)
