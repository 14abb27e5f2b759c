"""This process among those that train one network together (started by torchrun)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.errors import TrainerError

LETTING_GO_SECONDS = 0.2
"""What Gloo's threads get to let go of the last tensors, which takes them microseconds when they may run."""


@dataclass(frozen=True)
class Processes:
    """Who takes which part of a step. As a context it parts from the others at its end.

    Every method that talks to the others must be called by all of them, in the same order.

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
        own = _usable(f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device)
        if own.type == "cuda":
            torch.cuda.set_device(own)
        try:
            # The others wait while process 0 judges images, which may take hours.
            dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=timedelta(days=1))
        except (RuntimeError, ValueError) as error:
            raise TrainerError(
                f"the processes of this run do not find each other: {error}. Start them with torchrun."
            ) from error
        return cls(dist.get_rank(), dist.get_world_size(), own)

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
        own = len(rows) // self.count
        starts = rows[self.rank * own : (self.rank + 1) * own : size]
        return [range(start, start + size) for start in starts]

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all processes of tensors of one shape, on `device`."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    def decide(self, verdict: bool) -> bool:
        """Return what process 0 says, so that all do the same."""
        if self.count == 1:
            return verdict
        word = torch.tensor(int(verdict), device=self.device)
        dist.broadcast(word, src=0)
        return bool(word)

    def agree(self, number: int) -> bool:
        """Return whether all processes have the same number."""
        if self.count == 1:
            return True
        extremes = torch.tensor([number, -number], device=self.device)
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
        return bool(extremes[0] == -extremes[1])

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A process that failed must not wait for others that wait for it.
        if self.count > 1 and error is None:
            dist.destroy_process_group()
            # A thread of Gloo lets go of a tensor after others have its sum. If Python ends meanwhile, that
            # aborts the process (pytorch/pytorch#190489), and a mesh keeps the threads beyond their group.
            time.sleep(LETTING_GO_SECONDS)


def _usable(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise TrainerError(f"the device {device!r} cannot be used: {error}") from error
