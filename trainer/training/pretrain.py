"""Maximum-likelihood training of an EDM denoiser, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models import build
from trainer.config import OptimizerConfig, PretrainConfig
from trainer.data.dataset import LabelledImages
from trainer.errors import NonFiniteLossError
from trainer.objectives.denoising import denoising_loss, draw_sigma
from trainer.training.checkpoint import load_state, save_state
from trainer.training.ema import WeightAverage


@dataclass(frozen=True)
class Progress:
    """Where a run stands: images seen, the loss since the last report, images a second."""

    images: int
    loss: float
    rate: float


def learning_rate(seen: int, total: int, config: OptimizerConfig) -> float:
    """Return the rate at `seen` of `total` images: warm-up, constant, linear decay at the end."""
    warm = min(1.0, seen / config.warmup_images) if config.warmup_images else 1.0
    left = (total - seen) / config.decay_images if config.decay_images else 1.0
    span = config.learning_rate - config.final_learning_rate
    return warm * (config.final_learning_rate + span * min(1.0, max(0.0, left)))


class Pretraining:
    """One run in `directory`; made anew it goes on where the saved state ends.

    Attributes:
        seen: training images so far.
        average: the moving average, whose network is what is published.
    """

    def __init__(self, config: PretrainConfig, data: LabelledImages, directory: Path) -> None:
        self.config = config
        self.data = data
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.network: nn.Module = build(config.network).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.network, config.ema_images)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), betas=config.optimizer.betas, eps=1e-8, foreach=True
        )
        self.seen = 0
        state = load_state(directory)
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.average.network.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.seen = state["seen"]
        # Compiled in place: the state dict keeps its names.
        if config.compile:
            self.network.compile()

    def save(self) -> None:
        """Write the state."""
        save_state(
            self.directory,
            {
                "network": self.network.state_dict(),
                "average": self.average.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "seen": self.seen,
            },
        )

    def run(self, clock: Callable[[], float] = time.monotonic, report_steps: int = 20) -> Iterator[Progress]:
        """Train to the end, saving on the way, and yield a report every `report_steps` steps.

        Raises:
            NonFiniteLossError: the saved state is from before it happened.
        """
        saved = started = clock()
        losses: list[torch.Tensor] = []
        while self.seen < self.config.images:
            losses.append(self._step())
            if len(losses) == report_steps or self.seen >= self.config.images:
                loss = torch.stack(losses).mean().item()
                if not math.isfinite(loss):
                    raise NonFiniteLossError(
                        f"the loss is {loss} after {self.seen} images; {self.directory} holds the last good "
                        "state. Lower the learning rate or use precision = 'float32'."
                    )
                now = clock()
                if now - saved >= self.config.checkpoint_seconds:
                    self.save()
                    saved = now
                yield Progress(self.seen, loss, len(losses) * self.config.batch / max(now - started, 1e-9))
                started, losses = clock(), []
        self.save()

    def _step(self) -> torch.Tensor:
        config = self.config
        step = self.seen // config.batch
        images, labels = self.data.batch(step, config.batch, config.seed)
        # Randomness is reseeded from progress, so that a resumed run repeats it exactly.
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        torch.manual_seed(generator.initial_seed())
        sigma = draw_sigma(config.batch, config.loss.p_mean, config.loss.p_std, generator)
        noise = torch.randn(images.shape, generator=generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.seen, config.images, config.optimizer)
        with self._precision():
            loss = denoising_loss(
                self.network,
                images,
                labels,
                sigma=sigma,
                noise=noise,
                sigma_data=float(self.network.sigma_data),  # type: ignore[arg-type]
            )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), config.optimizer.clip_norm, foreach=True)
        self.optimizer.step()
        self.seen += config.batch
        self.average.update(self.network, self.seen, config.batch)
        return loss.detach()

    def _precision(self) -> AbstractContextManager[object]:
        if self.config.precision == "bfloat16":
            return torch.autocast("cpu", torch.bfloat16)
        return nullcontext()
