"""Speed of a DDO step: the trainer's against a plain eager loop of the same mathematics."""

from __future__ import annotations

import copy
import itertools
import math
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from torch import Tensor, nn

import trainer
from benchmarks.plain_ddo import PlainDdo
from models.networks import build
from models.networks.edm import EDMPrecond
from trainer.data.arrays import ArrayImages
from trainer.objectives.config import DdoStrength, NoiseLevels
from trainer.objectives.diffusion_ddo import DiffusionDdo
from trainer.training.config import OptimizerConfig, TrainingConfig
from trainer.training.loop import Loop
from trainer.training.processes import Processes

EMOJI = Path(trainer.__file__).parent / "configs" / "emoji-edm.toml"
CPU = torch.device("cpu")
TOLERANCE = 1e-5  # of the gradient, relative
RATE = 1e-5  # of learning
IMAGES = 256  # of each kind
# Deviation added to fresh weights, whose last layers are nearly zero and pass no gradient on. With more, and
# a sharper discriminator, float32 itself is further from float64's gradient than TOLERANCE.
FRESH = 5e-3
MOVED = 1e-3  # how far the reference lies from the network
STRENGTH = DdoStrength(alpha=4.0, beta=0.02)
PLAIN, EAGER, COMPILED = "plain eager loop", "trainer, eager", "trainer, compiled"


@dataclass(frozen=True)
class Contender:
    """One way to make a step.

    Attributes:
        network: the one that it trains; after a step it holds the step's gradient.
        step: makes the next step.
        walls: seconds of each measured step.
        computes: CPU seconds of each, of all threads together.
    """

    network: nn.Module
    step: Callable[[], object]
    walls: list[float] = field(default_factory=list)
    computes: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Make a step and note how long it took."""
        wall, compute = time.perf_counter(), time.process_time()
        self.step()
        self.computes.append(time.process_time() - compute)
        self.walls.append(time.perf_counter() - wall)


def main(config: Path, *, pairs: int, repetitions: int, compiled: bool) -> bool:
    """Print how many pairs a second each way trains, in float32 on the CPU.

    Args:
        config: TOML file whose table `network` holds an EDM network's constructor arguments.
        pairs: real images of a step, and as many fakes.
        repetitions: measured steps of each, taken in turn so that what else the machine does hits all alike.
        compiled: measure the compiled step too (minutes until it starts; needs a C++ compiler).

    Returns:
        Whether the first step's gradient was the plain loop's to `TOLERANCE`.
    """
    console = Console()
    init = tomllib.loads(config.read_text())["network"]
    with tempfile.TemporaryDirectory() as directory:
        ways = contenders(init, pairs, Path(directory), compiled=compiled)
        errors: dict[str, float] = {}
        for name in track(ways, description="first steps"):
            ways[name].step()
            errors[name] = relative_error(gradient(ways[name].network), gradient(ways[PLAIN].network))
        for _ in track(range(repetitions), description="steps"):
            for way in ways.values():
                way.measure()
    size = sum(parameter.numel() for parameter in ways[PLAIN].network.parameters())
    console.print(
        f"{config.stem}: {size / 1e6:.1f} M parameters, {pairs} pairs a step, {repetitions} steps each; "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"threads: {torch.get_num_threads()}"
    )
    console.print(comparison(ways, errors, pairs))
    return all(error <= TOLERANCE for error in errors.values())


def contenders(
    init: Mapping[str, Any], pairs: int, directory: Path, *, compiled: bool
) -> dict[str, Contender]:
    """Return the ways to make a step by name, the plain one first; all see the same batches and weights.

    Args:
        init: constructor arguments of an EDM network; dropout is switched off, as DDO has none.
        pairs: real images of a step.
        directory: of the trainer's states; nothing is written.
        compiled: with the compiled step.
    """
    torch.manual_seed(0)
    start = shaken(build({**init, "dropout": 0.0, "label_dropout": 0.0}).train(), FRESH)
    reference = shaken(start, MOVED).requires_grad_(False)

    def plain() -> Contender:
        rows = itertools.count(step=pairs)
        draws = objective(reference)
        way = PlainDdo(copy.deepcopy(start), reference, STRENGTH, RATE)
        return Contender(way.network, lambda: way.step(draws.batch(range(row := next(rows), row + pairs))))

    def trained(compiled: bool) -> Contender:
        network, frozen = copy.deepcopy(start), copy.deepcopy(reference)
        if compiled:
            frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        config = TrainingConfig(
            images=10**9,
            batch=pairs,
            optimizer=OptimizerConfig(learning_rate=RATE, warmup_images=0, clip_norm=None),
            compile=compiled,
            checkpoint_seconds=math.inf,
            report_steps=1,
        )
        reports = Loop(network, objective(frozen), config, directory, Processes(0, 1, CPU)).run()
        return Contender(network, lambda: next(reports))

    ways = {PLAIN: plain(), EAGER: trained(compiled=False)}
    return {**ways, COMPILED: trained(compiled=True)} if compiled else ways


def objective(reference: nn.Module) -> DiffusionDdo:
    """Return DDO against this reference, an EDM network, on random pixels: what they show costs nothing."""
    geometry = cast(EDMPrecond, reference)
    real, fake = (random_images(geometry, seed) for seed in (1, 2))
    return DiffusionDdo(real, fake, reference, NoiseLevels(), STRENGTH, seed=0, device=CPU)


def random_images(network: EDMPrecond, seed: int) -> ArrayImages:
    """Return images of the network's geometry and classes, pixels folded into the channels beyond three."""
    fold = math.isqrt(network.img_channels // 3)
    side, classes = network.img_resolution * fold, max(1, network.label_dim)
    count = max(IMAGES, classes)
    pixels = np.random.default_rng(seed).integers(256, size=(count, side, side, 3), dtype=np.uint8)
    return ArrayImages(pixels, np.arange(count) % classes, tuple(map(str, range(classes))), fold=fold)


@torch.no_grad()
def shaken(network: nn.Module, deviation: float) -> nn.Module:
    """Return a copy with normal noise of this deviation added to every weight."""
    moved = copy.deepcopy(network)
    for parameter in moved.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=deviation)
    return moved


def gradient(network: nn.Module) -> Tensor:
    """Return the gradient of all weights, one vector, float64; a weight without one counts zeros."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    return torch.cat([part.flatten().double() for part in parts])


def relative_error(value: Tensor, exact: Tensor) -> float:
    """Return |value - exact| / |exact|, Euclidean."""
    return float((value - exact).norm() / exact.norm())


def comparison(ways: Mapping[str, Contender], errors: Mapping[str, float], pairs: int) -> Table:
    """Return a table with a line for every way: medians of its steps, and of its ratios to the plain one's.

    Ratios are those of steps made one after the other.
    """
    table = Table(Column(no_wrap=True), "pairs/s", "CPU s/step", "speed-up", "of CPU time", "gradient off by")
    plain = ways[PLAIN]
    for name, way in ways.items():
        table.add_row(
            name,
            f"{pairs / median(way.walls):.2f}",
            f"{median(way.computes):.3f}",
            f"{_ratio(plain.walls, way.walls):.2f}",
            f"{_ratio(plain.computes, way.computes):.2f}",
            f"{errors[name]:.1e}",
        )
    return table


def _ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    return median(before / after for before, after in zip(slow, fast, strict=True))
