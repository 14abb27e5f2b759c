"""Moving averages of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.training.config import HalfLifeAverage, PowerAverage


def decay(config: HalfLifeAverage | PowerAverage, seen: int, batch: int) -> float:
    """Return how much of the average remains after the step that ends at `seen` images, in [0, 1)."""
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

    Under sharding each process averages its own part.
    """

    def __init__(self, network: nn.Module, config: HalfLifeAverage | PowerAverage) -> None:
        self.config = config
        self._sources = dict(network.named_parameters())
        self._values = {name: p.detach().clone() for name, p in self._sources.items()}

    @torch.no_grad()
    def update(self, seen: int, batch: int) -> None:
        """Move towards the network after a step of `batch` images, `seen` in all."""
        kept = decay(self.config, seen, batch)
        torch._foreach_lerp_(_local(self._values), _local(self._sources), 1 - kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the whole averaged parameters by name; under sharding every process must call it."""
        return {
            name: value.full_tensor() if isinstance(value, DTensor) else value
            for name, value in self._values.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave, with any number of processes."""
        for name, value in self._values.items():
            whole = state[name].to(value.device)
            if isinstance(value, DTensor):
                whole = distribute_tensor(whole, value.device_mesh, value.placements)
            value.copy_(whole)


def _local(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors.values()]
