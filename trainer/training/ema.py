"""Moving average of the weights with a half-life counted in images."""

from __future__ import annotations

import copy

import torch
from torch import nn

_RAMP_UP = 0.05


class WeightAverage:
    """Keeps `network`, a copy whose weights follow another's.

    The half-life is at most 5 % of the images seen, so that an early average is not that of the start.
    """

    def __init__(self, network: nn.Module, half_life: int) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.half_life = half_life

    @torch.no_grad()
    def update(self, source: nn.Module, seen: int, batch: int) -> None:
        """Move towards `source` after `batch` more images, `seen` in all."""
        half_life = min(float(self.half_life), max(seen, batch) * _RAMP_UP)
        weight = 1 - 0.5 ** (batch / half_life)
        torch._foreach_lerp_(list(self.network.parameters()), list(source.parameters()), weight)
