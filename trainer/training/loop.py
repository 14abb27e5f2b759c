"""The training loop: any network, any objective, resumable to the bit."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.utils.checkpoint import checkpoint

from models.networks import blocks_of
from trainer.errors import NonFiniteLossError
from trainer.objectives.base import Batch, Objective
from trainer.training.average import WeightAverage
from trainer.training.checkpoint import load_state, save_state
from trainer.training.config import OptimizerConfig, TrainingConfig
from trainer.training.processes import Processes
from trainer.training.schedule import learning_rate


@dataclass(frozen=True)
class Report:
    """Where a run stands.

    Attributes:
        images: seen so far.
        values: means since the last report: `loss` and whatever else the objective reports, the norm of
            the gradient and the learning rate.
        rate: images a second.
    """

    images: int
    values: Mapping[str, float]
    rate: float


class LossModule(nn.Module, Generic[Batch]):
    """Network and objective as one module, so that whatever the loss touches is seen by DDP and FSDP2."""

    def __init__(self, network: nn.Module, objective: Objective[Batch]) -> None:
        super().__init__()
        self.network = network
        self._loss = objective.loss

    def forward(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the objective's values."""
        return self._loss(self.network, batch)


class Loop(Generic[Batch]):
    """Trains `network` on `objective` in `directory`; made anew it goes on where the saved state ends.

    Args:
        network: float32, on the processes' device, in the mode (`train` or `eval`) to train it in.
        objective: what is minimised.
        config: how.
        directory: holds `state.pt`.
        processes: who else trains it.

    Attributes:
        seen: images so far.

    Raises:
        TrainerError: the saved state is damaged, or is not of this network.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective[Batch],
        config: TrainingConfig,
        directory: Path,
        processes: Processes,
    ) -> None:
        self.config = config
        self.directory = directory
        self.network = network
        self.seen = 0
        self._objective = objective
        self._processes = processes
        blocks = blocks_of(network)
        if config.activation_checkpointing:
            _checkpoint_activations(blocks)
        if config.compile:
            # In place, so that the state dict keeps its names.
            network.compile()
        self._module = processes.wrap(LossModule(network, objective), blocks, config.sharding)
        self._optimizer = _adam(network, config.optimizer)
        self.averages = {average.name: WeightAverage(network, average) for average in config.averages}
        state = load_state(directory)
        if state is not None:
            self._restore(state)

    def run(self, until: int | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Report]:
        """Train until `until` images (default: all), saving on the way and at the end; yield reports.

        Raises:
            NonFiniteLossError: the saved state is from before it happened.
            TrainerError: the state cannot be written; the one before is intact.
        """
        config = self.config
        until = config.images if until is None else min(until, config.images)
        saved = started = clock()
        values: list[dict[str, Tensor]] = []
        while self.seen < until:
            values.append(self._step())
            if len(values) == config.report_steps or self.seen >= until:
                means = self._means(values)
                now = clock()
                if now - saved >= config.checkpoint_seconds:
                    self.save()
                    saved = now
                yield Report(self.seen, means, len(values) * config.batch / max(now - started, 1e-9))
                started, values = clock(), []
        self.save()

    def save(self) -> None:
        """Write the state; every process must call it."""
        network, optimizer = get_state_dict(self.network, self._optimizer, options=_WHOLE)
        state = {
            "network": network,
            "optimizer": optimizer,
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "seen": self.seen,
        }
        if self._processes.leads:
            save_state(self.directory, state)
        self._processes.wait()

    def weights(self, average: str) -> dict[str, Tensor]:
        """Return the whole state dict of the network with the parameters of one moving average, a copy."""
        network, _ = get_state_dict(self.network, (), options=_WHOLE)
        averaged: Mapping[str, Any] = network | self.averages[average].state_dict()
        return {name: value.detach().cpu().clone() for name, value in averaged.items()}

    def _restore(self, state: Mapping[str, Any]) -> None:
        set_state_dict(
            self.network,
            self._optimizer,
            model_state_dict=state["network"],
            optim_state_dict=state["optimizer"],
            options=_WHOLE,
        )
        for name, average in self.averages.items():
            average.load_state_dict(state["averages"][name])
        self.seen = state["seen"]

    def _step(self) -> dict[str, Tensor]:
        config = self.config
        rate = learning_rate(self.seen, config.images, config.optimizer)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        parts = self._processes.share(range(self.seen, self.seen + config.batch), config.microbatch)
        values = [self._accumulate(rows, len(parts)) for rows in parts]
        norm = nn.utils.clip_grad_norm_(
            self.network.parameters(), config.optimizer.clip_norm or math.inf, foreach=True
        )
        self._optimizer.step()
        self.seen += config.batch
        for average in self.averages.values():
            average.update(self.seen, config.batch)
        means = {name: torch.stack([part[name] for part in values]).mean() for name in values[0]}
        return means | {"gradient_norm": norm.detach(), "learning_rate": torch.tensor(rate)}

    def _accumulate(self, rows: range, parts: int) -> dict[str, Tensor]:
        # What a network itself draws (dropout, label dropout) is seeded by the rows too.
        torch.manual_seed(self.config.seed * 1_000_003 + rows.start)
        with self._precision():
            values = self._module(self._objective.batch(rows))
        torch.autograd.backward(values["loss"] / parts)
        return {name: value.detach().float() for name, value in values.items()}

    def _means(self, values: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        names = list(values[0])
        table = torch.stack([torch.stack([step[name].cpu() for name in names]) for step in values])
        table = self._processes.mean(table)
        losses = table[:, names.index("loss")]
        if not losses.isfinite().all():
            first = int((~losses.isfinite()).nonzero()[0])
            images = self.seen - (len(values) - first) * self.config.batch
            raise NonFiniteLossError(
                f"the loss is {losses[first].item()} in the step that starts at image {images}; "
                f"{self.directory} holds the last good state. Lower the learning rate, clip the gradient, or "
                "use precision = 'float32'."
            )
        return dict(zip(names, table.mean(dim=0).tolist(), strict=True))

    def _precision(self) -> AbstractContextManager[object]:
        if self.config.precision == "bfloat16":
            return torch.autocast(self._processes.device.type, torch.bfloat16)
        return nullcontext()


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def _adam(network: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], betas=config.betas, eps=config.eps, foreach=True
    )


def _checkpoint_activations(blocks: Sequence[nn.Module]) -> None:
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
