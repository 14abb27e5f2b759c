"""A GPU's streams and CUDA graphs, apart from what runs in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from engines.errors import EngineError

Work = Callable[[int], None]
"""Queues work on the stream whose handle it is given."""


class Device(Protocol):
    """What runs programs asks this of a GPU.

    Attributes:
        device: where tensors lie.
    """

    device: torch.device

    def run(self, work: Work) -> None:
        """Queue work behind what was queued before."""
        ...

    def capture(self, work: Work) -> Callable[[], None]:
        """Return what queues `work` again, on the same memory, at the price of one launch."""
        ...


class CudaDevice:
    """An NVIDIA GPU; work runs on torch's current stream, so that it is in order with torch's own.

    Raises:
        EngineError: there is no GPU, driver or CUDA build of torch.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda" or not torch.cuda.is_available():
            raise EngineError(
                f"an NVIDIA GPU is needed: {device} cannot be used. It takes the GPU's driver and a torch "
                "with CUDA; TensorRT engines are built without them"
            )
        self.device = device

    def run(self, work: Work) -> None:
        """Queue work on torch's current stream."""
        work(torch.cuda.current_stream(self.device).cuda_stream)

    def capture(self, work: Work) -> Callable[[], None]:
        """Record `work` as a CUDA graph and return its replay."""
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            work(side.cuda_stream)  # the first run sets things up, which a graph must not hold
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            work(side.cuda_stream)
        return graph.replay
