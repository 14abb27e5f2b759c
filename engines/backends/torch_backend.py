"""Plain torch on any device: the reference that other backends are measured against."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from engines.backends.base import CompiledStep
from engines.programs.diffusion_step import DiffusionStep


class TorchBackend:
    """Runs networks eagerly, convolutions in `dtype` and channels-last, conditioning in float32."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype

    def compile(self, step: DiffusionStep) -> CompiledStep:
        """Fold, cast and move the networks of `step`."""
        for network in (step.network, step.guide):
            if network is not None:
                self._prepare(network)

        @torch.inference_mode()
        def run(
            state: Tensor, sigma: Tensor, class_ids: Tensor, update: Tensor, scale: Tensor | None
        ) -> Tensor:
            result: Tensor = step(state, sigma, class_ids, update, scale)
            return result

        return run

    def _prepare(self, network: nn.Module) -> None:
        network.eval().requires_grad_(False).to(self.device)
        network.prepare_inference(self.dtype)  # type: ignore[operator]
        convert_conv2d_weight_memory_format(network, torch.channels_last)
