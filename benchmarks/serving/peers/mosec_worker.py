"""mosec."""

from __future__ import annotations

import sys
from typing import Any

import mosec

from benchmarks.serving.peers.model import WAIT_S, PeerSettings


class ToyWorker(mosec.Worker):
    """Batches of requests, as mosec makes them."""

    def __init__(self) -> None:
        """Load the model in mosec's worker."""
        super().__init__()
        self.model = PeerSettings.from_environment().model()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make the images of a batch."""
        return self.model.generate(data)


if __name__ == "__main__":
    port = PeerSettings.from_environment().port
    sys.argv = [sys.argv[0], "--address", "127.0.0.1", "--port", str(port), "--timeout", "60000"]
    server = mosec.Server()
    server.append_worker(
        ToyWorker, max_batch_size=8, max_wait_time=int(1000 * WAIT_S), timeout=60, route="/generate"
    )
    server.run()
