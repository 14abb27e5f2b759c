"""torch.compile, and on a GPU CUDA graphs of what it makes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engines.backends.base import CompiledStep
from engines.backends.result_search import search_by_results
from engines.backends.torch_backend import prepare_step
from engines.buckets import Buckets
from engines.compiled import compile_function
from engines.cuda import Device
from engines.graphed_calls import GraphedCalls
from engines.programs.diffusion_step import DiffusionStep


class TorchCompileBackend:
    """Compiles the fused step once for each batch size and lane, when the search first makes such a call.

    Args:
        device: where to compute.
        dtype: float32 or bfloat16, of convolutions; conditioning, guidance and state stay float32.
        graphs: captures CUDA graphs; None: compiled functions are called as they are, as on a CPU.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, graphs: Device | None) -> None:
        self.device = device
        self.dtype = dtype
        self._graphs = graphs

    def compile(self, step: DiffusionStep) -> CompiledStep:
        """Fold, cast and move the networks of `step`; kernels are made at the first call of each size."""
        prepare_step(step, self.device, self.dtype)
        compiled = compile_function(step)

        def call(*inputs: Tensor) -> Tensor:
            scale = inputs[4] if len(inputs) == 5 else None
            return compiled(*inputs[:4], scale)

        launched: Callable[..., Tensor] = GraphedCalls(call, self._graphs) if self._graphs else call

        @torch.inference_mode()
        def run(
            state: Tensor, sigma: Tensor, class_ids: Tensor, update: Tensor, scale: Tensor | None
        ) -> Tensor:
            given = (state, sigma, class_ids, update)
            return launched(*given) if scale is None else launched(*given, scale)

        return run

    def find_buckets(
        self, step: DiffusionStep, lane: str, run: Callable[[int, int], Tensor], most: int
    ) -> Buckets:
        """Compare results: what is compiled has no modules to watch."""
        return search_by_results(run, most)
