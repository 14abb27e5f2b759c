"""Moving averages of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from trainer.training.config import HalfLifeAverage, PowerAverage
from trainer.training.spread import local


def decay(config: HalfLifeAverage | PowerAverage, seen: int, batch: int) -> float:
    """Return how much of the average remains after the step that ends at `seen` images, in [0, 1).

    Half-life: 2^(-batch / half-life), shorter early on. Power function: Karras et al. 2024, arXiv 2312.02696,
    Eq. 127, with t = seen / batch.
    """
    match config:
        case HalfLifeAverage(images=images, ramp_up=ramp_up):
            return float(0.5 ** (batch / min(float(images), seen * ramp_up)))
        case PowerAverage(std=std):
            return float((1 - batch / seen) ** (power_exponent(std) + 1))


def power_exponent(std: float) -> float:
    """Return gamma of the power-function average of relative width `std`.

    The positive root of std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) (Karras et al. 2024, Eq. 123-126).
    """
    t = std**-2
    return float(np.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())


class WeightAverage:
    """Follows the parameters of `network`; buffers are the network's own.

    Attributes:
        values: the averaged parameters by name; spread over the processes as the network's are.
    """

    def __init__(self, network: nn.Module, config: HalfLifeAverage | PowerAverage) -> None:
        self._config = config
        self._sources = dict(network.named_parameters())
        self.values: Mapping[str, Tensor] = {n: p.detach().clone() for n, p in self._sources.items()}

    @torch.no_grad()
    def update(self, seen: int, batch: int) -> None:
        """Move towards the network after a step of `batch` images, `seen` in all."""
        kept = decay(self._config, seen, batch)
        averages = [local(value) for value in self.values.values()]
        torch._foreach_lerp_(averages, [local(source) for source in self._sources.values()], 1 - kept)
