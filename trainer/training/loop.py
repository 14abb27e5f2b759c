"""The training loop: any network, any objective, resumable to the bit."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.networks import blocks_of, force_unit_weights
from trainer.errors import TrainerError
from trainer.kernels.winograd import fast_convolutions
from trainer.objectives.base import Batch, Objective
from trainer.training.average import WeightAverage
from trainer.training.checkpoint import load_state, save_state
from trainer.training.config import TrainingConfig
from trainer.training.optimizer import adam, clip_gradient
from trainer.training.parallel import parallelize
from trainer.training.processes import Processes
from trainer.training.schedule import learning_rate
from trainer.training.spread import gather
from trainer.training.state import gather_state, restore_state
from trainer.training.window import GRADIENT_NORM, Window


@dataclass(frozen=True)
class Report:
    """Where a run stands.

    Attributes:
        images: seen so far.
        values: means since the last report: `loss`, whatever else the objective reports, and
            `gradient_norm`, before clipping; and `learning_rate`, of the last step.
        rate: images a second.
    """

    images: int
    values: Mapping[str, float]
    rate: float


class LossModule(nn.Module, Generic[Batch]):
    """Network and objective as one module, so that whatever the loss touches is compiled and spread."""

    def __init__(self, network: nn.Module, objective: Objective[Batch]) -> None:
        super().__init__()
        self.network = network
        self._loss = objective.loss

    def forward(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the objective's values."""
        return self._loss(self.network, batch)


class Loop(Generic[Batch]):
    """Trains `network` on `objective` in `directory`; made anew it goes on where the saved state ends.

    Where the network's weights are forced to unit norm (EDM2), they are so from the start and after every
    step, and so are stored.

    Args:
        network: float32, on the processes' device, in the mode (`train` or `eval`) to train it in.
        objective: what is minimised.
        config: how.
        directory: holds `state.pt`; every process reads it, process 0 writes it.
        processes: who else trains it.

    Attributes:
        config: how.
        network: the one that is trained.
        averages: of its weights, by name.
        seen: images so far.

    Raises:
        TrainerError: the batch cannot be shared; the saved state is damaged, not of this network, or not
            the same for all processes.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective[Batch],
        config: TrainingConfig,
        directory: Path,
        processes: Processes,
    ) -> None:
        processes.share(range(config.batch), config.microbatch)
        self.config = config
        self.network = network
        self.seen = 0
        self._objective = objective
        self._directory = directory
        self._processes = processes
        eager = config.precision == "float32" and not config.compile
        self._convolutions = fast_convolutions(network, processes.device) if eager else nullcontext()
        blocks = blocks_of(network)
        module = LossModule(network, objective)
        if config.activation_checkpointing:
            _checkpoint_activations(blocks)
        if config.compile:
            # Compiled convolutions are faster so, and the normalisations between them are fused. Eager ones
            # on a CPU are much slower so.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            module.compile()
        self._module = parallelize(module, blocks, config.sharding, processes)
        self._optimizer = adam(network, config.optimizer)
        state = load_state(directory)
        if not processes.agree(0 if state is None else state["seen"]):
            raise TrainerError(
                f"{directory} holds another state for each process; it must be one folder for all"
            )
        if state is None:
            force_unit_weights(network)
        self.averages = {average.name: WeightAverage(network, average) for average in config.averages}
        if state is not None:
            self.seen = restore_state(state, network, self._optimizer, self.averages)

    def run(self, until: int | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Report]:
        """Train until at least `until` images (default: all), saving on the way and at the end.

        On the way a state is saved once the loss that it leads to is known to be finite.

        Yields:
            A report every `report_steps` steps and at the end.

        Raises:
            NonFiniteLossError: the saved state is from before it happened.
            TrainerError: the state cannot be written; the one before is intact.
        """
        config = self.config
        until = config.images if until is None else min(until, config.images)
        saved = started = clock()
        window = Window(self._processes, config.batch)
        due = False
        while self.seen < until:
            window.add(self.seen, self._accumulate())
            if due:
                window.means()
                self.save()
                saved, due = clock(), False
            rate = self._update()
            if len(window) == config.report_steps or self.seen >= until:
                values = {**window.means(), "learning_rate": rate}
                now = clock()
                due = self._processes.decide(now - saved >= config.checkpoint_seconds)
                yield Report(self.seen, values, len(window) * config.batch / max(now - started, 1e-9))
                window.clear()
                started = clock()
        self.save()

    def save(self) -> None:
        """Write the state; every process must call it.

        Raises:
            TrainerError: it cannot be written; the one before is intact.
        """
        leads = self._processes.leads
        state = gather_state(self.network, self._optimizer, self.averages, self.seen, keep=leads)
        if leads:
            save_state(self._directory, state)
        self._processes.wait()

    def weights(self, average: str) -> dict[str, Tensor]:
        """Return the whole state dict of the network with the parameters of one moving average, a copy.

        Every process must call it, and gets it.
        """
        averaged = {**self.network.state_dict(), **self.averages[average].values}
        return {name: tensor.clone() for name, tensor in gather(averaged, keep=True).items()}

    def _accumulate(self) -> Mapping[str, Tensor]:
        """Leave the gradient of the next step in the network; return what was measured on the way."""
        config = self.config
        self._optimizer.zero_grad(set_to_none=True)
        rows = range(self.seen, self.seen + config.batch)
        parts = self._processes.share(rows, config.microbatch)
        values = []
        for part in parts:
            with self._module.backward(last=part is parts[-1]):
                values.append(self._backward(part, len(parts)))
        norm = clip_gradient(self._optimizer, config.optimizer.clip_norm)
        means = {name: torch.stack([value[name] for value in values]).mean() for name in values[0]}
        return {**means, GRADIENT_NORM: norm}

    def _backward(self, rows: range, parts: int) -> Mapping[str, Tensor]:
        batch = self._objective.batch(rows)
        # What a network itself draws (dropout, label dropout) is seeded by the rows too.
        torch.manual_seed(_mixed(self.config.seed, rows.start))
        with self._convolutions:  # for the backward pass too: checkpointed blocks run again there
            with self._precision():
                values: Mapping[str, Tensor] = self._module(batch)
            torch.autograd.backward(values["loss"] / parts)
        return {name: value.detach().float() for name, value in values.items()}

    def _update(self) -> float:
        """Make the step; return its learning rate."""
        config = self.config
        rate = learning_rate(self.seen, config.images, config.optimizer)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        force_unit_weights(self.network)
        self.seen += config.batch
        for average in self.averages.values():
            average.update(self.seen, config.batch)
        return rate

    def _precision(self) -> AbstractContextManager[object]:
        if self.config.precision == "bfloat16":
            return torch.autocast(self._processes.device.type, torch.bfloat16)
        return nullcontext()


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _checkpoint_activations(blocks: Sequence[nn.Module]) -> None:
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
