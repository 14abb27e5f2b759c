"""BentoML: a batching service, and one in front of it that takes single requests."""

from __future__ import annotations

from typing import Any

import bentoml

from benchmarks.serving.peers.model import PeerSettings

LONGEST_MS = 1000
"""BentoML drops what it expects to take longer; the longer it may, the longer it waits for more rows."""


@bentoml.service(workers=1, traffic={"timeout": 60})
class Model:
    """Makes the images of a batch."""

    def __init__(self) -> None:
        """Load the model in BentoML's worker."""
        self.model = PeerSettings.from_environment().model()

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=LONGEST_MS)
    def make(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make the images of a batch."""
        return self.model.generate(bodies)


@bentoml.service(workers=1, traffic={"timeout": 60})
class Front:
    """Takes single requests."""

    model = bentoml.depends(Model)

    @bentoml.api(route="/generate")
    async def generate(self, class_id: int, seed: int, steps: int) -> dict[str, Any]:
        """Hand one request to the batching service."""
        body = {"class_id": class_id, "seed": seed, "steps": steps}
        [answer] = await self.model.to_async.make([body])
        return answer
