"""What a backend is to the engines above it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from engines.programs.diffusion_step import DiffusionStep


class CompiledStep(Protocol):
    """A compiled `DiffusionStep`; arguments and result as its `forward`, on the backend's device."""

    def __call__(  # noqa: D102
        self, state: Tensor, sigma: Tensor, class_ids: Tensor, update: Tensor, scale: Tensor | None
    ) -> Tensor: ...


class Backend(Protocol):
    """Compiles programs for one device.

    Attributes:
        device: where inputs must lie and results will.
    """

    device: torch.device

    def compile(self, step: DiffusionStep) -> CompiledStep:
        """Take `step` over and return its compiled form."""
        ...
