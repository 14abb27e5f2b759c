"""Plain torch on any device: the reference that other backends are measured against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils.flop_counter import FlopCounterMode

from engines.backends.base import CompiledStep
from engines.buckets import Buckets, powers_of_two
from engines.digests import RowDigests
from engines.programs.diffusion_step import DiffusionStep

MODULE_FLOPS = 5e7
"""What running a module costs beside its arithmetic, in floating-point operations of the time it takes.

On a CPU in bfloat16 4.5e7 was measured with 9 M parameters, where a call costs 6.4 rows beside its own, and
6.7e7 with 56 M, where it costs 0.4.
"""


class TorchBackend:
    """Runs networks eagerly, convolutions in `dtype` and channels-last, conditioning in float32."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype

    def compile(self, step: DiffusionStep) -> CompiledStep:
        """Fold, cast and move the networks of `step`."""
        prepare_step(step, self.device, self.dtype)

        @torch.inference_mode()
        def run(
            state: Tensor, sigma: Tensor, class_ids: Tensor, update: Tensor, scale: Tensor | None
        ) -> Tensor:
            result: Tensor = step(state, sigma, class_ids, update, scale)
            return result

        return run

    def find_buckets(
        self, step: DiffusionStep, lane: str, run: Callable[[int, int], Tensor], most: int
    ) -> Buckets:
        """Try one row, and compare all that it passes through."""

        def watched(size: int) -> Tensor:
            with RowDigests(step, size) as digests:
                result = run(size, 0)
            return digests.with_result(result)

        with FlopCounterMode(display=False) as counter:
            modules = watched(1).shape[1]
        call_cost = modules * MODULE_FLOPS / counter.get_total_flops()
        found = Buckets.find(watched, powers_of_two(most), call_cost)
        return found.timed(lambda size: run(size, 0).flatten()[0].item())  # waits for the device


def prepare_step(step: DiffusionStep, device: torch.device, dtype: torch.dtype) -> None:
    """Fold, cast and move the networks of a step: convolutions in `dtype` and channels-last."""
    for network in (step.network, step.guide):
        if network is not None:
            network.eval().requires_grad_(False).to(device)
            network.prepare_inference(dtype)  # type: ignore[operator]
            convert_conv2d_weight_memory_format(network, torch.channels_last)
