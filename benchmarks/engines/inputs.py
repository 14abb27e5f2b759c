"""What every way of running a denoiser is given."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SIGMA = 80.0
"""Noise level of the evaluation (Karras et al. 2022, arXiv 2206.00364, Table 1): where sampling starts."""


class DenoiserInputs(NamedTuple):
    """Arguments of a denoiser: what an engine's rows with seeds and classes 0, 1, 2 ... start from.

    Attributes:
        x: pure noise, (B, C, H, W) float32.
        sigma: its level, (B,) float32.
        labels: one-hot, (B, classes) float32; None for an unconditional network.
    """

    x: Tensor
    sigma: Tensor
    labels: Tensor | None

    @classmethod
    def draw(cls, batch: int, channels: int, side: int, classes: int) -> DenoiserInputs:
        """Draw the inputs of a batch."""
        noise = [
            torch.randn(channels, side, side, generator=torch.Generator().manual_seed(i))
            for i in range(batch)
        ]
        labels = torch.eye(classes)[torch.arange(batch) % classes] if classes else None
        return cls(SIGMA * torch.stack(noise), torch.full((batch,), SIGMA), labels)
