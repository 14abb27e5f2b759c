"""LitServe."""

from __future__ import annotations

from typing import Any

import litserve

from benchmarks.serving.peers.model import WAIT_S, PeerSettings

SETTINGS = PeerSettings.from_environment()


class ToyApi(litserve.LitAPI):
    """Batches of requests, as LitServe makes them."""

    def setup(self, device: str) -> None:
        """Load the model in LitServe's worker."""
        self.model = SETTINGS.model()

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Take a list as the batch."""
        return inputs

    def predict(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make the images of a batch."""
        return self.model.generate(inputs)

    def unbatch(self, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Take the list apart."""
        return outputs


if __name__ == "__main__":
    api = ToyApi(max_batch_size=8, batch_timeout=WAIT_S, api_path="/generate")
    server = litserve.LitServer(api, accelerator="cpu", devices=1, timeout=False)
    server.run(host="127.0.0.1", port=SETTINGS.port, log_level="warning", generate_client_file=False)
