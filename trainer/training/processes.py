"""This process among those that train one network together (started by torchrun)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from trainer.errors import TrainerError


@dataclass(frozen=True)
class Processes:
    """Who takes which part of a step.

    Attributes:
        rank: number of this process, from 0. Number 0 alone writes files and shows progress.
        count: how many there are.
        device: what this process computes on.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "cpu") -> Self:
        """Join the processes that torchrun started; without it this one is alone.

        Args:
            device: `cpu` or `cuda`; each process of a machine takes a GPU of its own.

        Raises:
            TrainerError: the device cannot be used, or the processes do not find each other.
        """
        if "RANK" not in os.environ:
            return cls(0, 1, _usable(device))
        own = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
        try:
            if not dist.is_initialized():
                dist.init_process_group("nccl" if device == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise TrainerError(
                f"the processes of this run do not find each other: {error}. Start them with torchrun."
            ) from error
        return cls(dist.get_rank(), dist.get_world_size(), _usable(own))

    @property
    def leads(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def share(self, rows: range, microbatch: int | None) -> list[range]:
        """Split a step's rows into microbatches and return those of this process.

        The split does not depend on the number of processes where `microbatch` is given, so that more of them
        give the same sums but for their order.

        Raises:
            TrainerError: the microbatches cannot be shared evenly.
        """
        size = microbatch or len(rows) // self.count
        if not size or len(rows) % (size * self.count):
            raise TrainerError(
                f"a batch of {len(rows)} in microbatches of {size} cannot be shared evenly by {self.count} "
                "processes: make batch a multiple of microbatch x processes"
            )
        starts = rows[self.rank * len(rows) // self.count : (self.rank + 1) * len(rows) // self.count : size]
        return [range(start, start + size) for start in starts]

    def wrap(
        self, module: nn.Module, blocks: Sequence[nn.Module], sharding: Literal["replicate", "shard"]
    ) -> nn.Module:
        """Make `module`'s backward pass average gradients over all processes.

        Args:
            module: its forward pass computes the loss.
            blocks: parts whose weights are gathered and freed one after the other under `shard`.
            sharding: see `TrainingConfig`.
        """
        if self.count == 1:
            return module
        if sharding == "replicate":
            return DistributedDataParallel(
                module, device_ids=[self.device] if self.device.type == "cuda" else None
            )
        mesh = init_device_mesh(self.device.type, (self.count,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.count
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()


def _usable(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise TrainerError(f"the device {device!r} cannot be used: {error}") from error
