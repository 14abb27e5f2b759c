"""What a backend is to the engines above it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from engines.buckets import Buckets
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

    def find_buckets(
        self, step: DiffusionStep, lane: str, run: Callable[[int, int], Tensor], most: int
    ) -> Buckets:
        """Find the batch sizes at which the compiled step gives a row the same bits.

        Args:
            step: what was compiled.
            lane: what kind of call this is; kinds have sizes of their own.
            run: makes a call of as many equal rows as its first argument says, and returns its result row by
                row; the second argument is the number of the row, 0 and up.
            most: largest size to try.

        Raises:
            EngineError: no size gives reproducible results.
        """
        ...
