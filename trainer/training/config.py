"""Everything that decides how a network is trained, whatever it learns."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.frozen import FrozenModel


class LinearSchedule(FrozenModel):
    """A constant rate that falls linearly to `final` times itself over the last `decay_images`."""

    kind: Literal["linear"] = "linear"
    decay_images: int = Field(default=0, ge=0)
    final: float = Field(default=0.0, ge=0, le=1)


class InverseSquareRootSchedule(FrozenModel):
    """EDM2's rate: constant for `constant_images`, then falls as 1 / sqrt(images), to `final` times itself.

    Karras et al. 2024, arXiv 2312.02696, Eq. 67.
    """

    kind: Literal["inverse-square-root"] = "inverse-square-root"
    constant_images: int = Field(gt=0)
    final: float = Field(default=0.0, ge=0, le=1)


Schedule = Annotated[LinearSchedule | InverseSquareRootSchedule, Field(discriminator="kind")]


class OptimizerConfig(FrozenModel):
    """Adam, with decoupled weight decay of matrices (Loshchilov & Hutter 2019, arXiv 1711.05101) if any.

    Attributes:
        learning_rate: after `warmup_images` of linear rise.
        clip_norm: largest norm of the whole gradient; None does not clip.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_images: int = Field(default=10_000, ge=0)
    schedule: Schedule = LinearSchedule()
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)


class HalfLifeAverage(FrozenModel):
    """A moving average that forgets half in `images`, early on in `ramp_up` of the images seen."""

    kind: Literal["half-life"] = "half-life"
    images: int = Field(ge=1)
    ramp_up: float = Field(default=0.05, gt=0)

    @property
    def name(self) -> str:
        """What reports and files call it."""
        return f"half-life-{self.images}"


class PowerAverage(FrozenModel):
    """A power-function average of relative width `std` (Karras et al. 2024, arXiv 2312.02696, Eq. 121)."""

    kind: Literal["power"] = "power"
    std: float = Field(gt=0, lt=0.288)

    @property
    def name(self) -> str:
        """What reports and files call it."""
        return f"power-{self.std:.3f}"


Average = Annotated[HalfLifeAverage | PowerAverage, Field(discriminator="kind")]


Sharding = Literal["replicate", "shard"]


class TrainingConfig(FrozenModel):
    """How long, how wide, how exact.

    Attributes:
        images: length of the run, in rows of the objective's stream; the last step may go beyond it.
        batch: rows of one optimizer step.
        microbatch: rows of one forward and backward pass; a step accumulates batch / microbatch of them,
            shared between the processes. None: the batch divided by the number of processes.
        averages: moving averages of the weights; the first one is what is published.
        precision: of the forward and backward pass; weights, sums and averages stay float32.
        compile: use `torch.compile` (minutes at start, then faster; needs a C++ compiler). In float32 on a
            CPU with AVX-512 it is slower than without, where convolutions go by Winograd's algorithm.
        activation_checkpointing: recompute each block's activations in the backward pass, to save memory.
        sharding: over several processes, `replicate` (DDP) holds the weights on each, `shard` (FSDP2) splits
            weights and optimizer between them.
        seed: of initial weights and of everything drawn.
        checkpoint_seconds: how often the state is saved.
        report_steps: steps between two reports.
    """

    images: int = Field(gt=0)
    batch: int = Field(default=64, ge=1)
    microbatch: int | None = Field(default=None, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    averages: tuple[Average, ...] = Field(default=(HalfLifeAverage(images=50_000),), min_length=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    activation_checkpointing: bool = False
    sharding: Sharding = "replicate"
    seed: int = Field(default=0, ge=0)
    checkpoint_seconds: float = Field(default=180.0, gt=0)
    report_steps: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.microbatch is not None and self.batch % self.microbatch:
            raise ValueError(f"batch {self.batch} is no multiple of microbatch {self.microbatch}")
        names = [average.name for average in self.averages]
        if len(set(names)) < len(names):
            raise ValueError(f"two averages have one name: {', '.join(names)}")
        return self
