"""How several processes share one module's weights and gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from trainer.training.config import Sharding
from trainer.training.processes import Processes


class Parallel(Protocol):
    """A module whose gradients end up as the mean over all processes."""

    def __call__(self, batch: Any) -> Any:
        """Run the module on this process's batch."""
        ...

    @contextmanager
    def backward(self, *, last: bool) -> Iterator[None]:
        """Enclose a forward and a backward pass; gradients are exchanged in the `last` of a step only."""
        ...


class Alone:
    """A module that one process trains."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, batch: Any) -> Any:
        """Run the module."""
        return self._module(batch)

    @contextmanager
    def backward(self, *, last: bool) -> Iterator[None]:
        """Do nothing: there is nobody to exchange with."""
        yield


class Replicated:
    """A module whose weights every process holds: DDP (Li et al. 2020, arXiv 2006.15704)."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = DistributedDataParallel(
            module,
            device_ids=[device] if device.type == "cuda" else None,
            forward_sync_buffers=False,
            # Not every objective needs every weight: only one of EDM2's asks for its uncertainty.
            find_unused_parameters=True,
        )

    def __call__(self, batch: Any) -> Any:
        """Run the module."""
        return self._module(batch)

    @contextmanager
    def backward(self, *, last: bool) -> Iterator[None]:
        """Average gradients bucket by bucket during the last backward pass."""
        if last:
            yield
        else:
            with self._module.no_sync():
                yield


class Sharded:
    """A module whose weights are spread over the processes: FSDP2 (Zhao et al. 2023, arXiv 2304.11277).

    Weights without a dimension to split stay whole on every process.

    Args:
        module: its forward pass computes the loss.
        blocks: parts whose weights are gathered and freed one after the other.
        processes: who shares.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[nn.Module], processes: Processes) -> None:
        mesh = init_device_mesh(processes.device.type, (processes.count,))
        self._processes = processes
        self._scalars = [parameter for parameter in module.parameters() if parameter.ndim == 0]
        for part in (*blocks, module):
            fully_shard(part, mesh=mesh, ignored_params=set(self._scalars))
        for block in blocks:
            # VAR asks its blocks for what the class does to them before it runs them.
            if hasattr(block, "modulation"):
                register_fsdp_forward_method(block, "modulation")
        self._module = cast(FSDPModule, module)

    def __call__(self, batch: Any) -> Any:
        """Run the module."""
        return self._module(batch)  # type: ignore[operator]

    @contextmanager
    def backward(self, *, last: bool) -> Iterator[None]:
        """Average and split gradients in the last backward pass, those of the scalars after it."""
        self._module.set_requires_gradient_sync(last)
        yield
        gradients = [scalar.grad for scalar in self._scalars if scalar.grad is not None]
        if last and gradients:
            torch._foreach_copy_(gradients, list(self._processes.mean(torch.stack(gradients))))


def parallelize(
    module: nn.Module, blocks: Sequence[nn.Module], sharding: Sharding, processes: Processes
) -> Parallel:
    """Return `module` as `processes` train it; see `TrainingConfig.sharding`, and `Sharded` for `blocks`."""
    if processes.count == 1:
        return Alone(module)
    if sharding == "replicate":
        return Replicated(module, processes.device)
    return Sharded(module, blocks, processes)
