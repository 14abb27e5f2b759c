"""Everything that decides a maximum-likelihood run, read from one TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from models.frozen import FrozenModel
from trainer.errors import TrainerError


class DataConfig(FrozenModel):
    """Which images to train on.

    Attributes:
        path: .npz with `images` (N, H, W, 3) uint8, `labels`, and where `styles` is used, `style` and
            `style_names`.
        styles: names of the drawing styles to keep; empty: all.
        fold: side of the square of pixels that is folded into channels.
    """

    path: Path
    styles: tuple[str, ...] = ()
    fold: int = Field(default=1, ge=1)


class LossConfig(FrozenModel):
    """Noise levels of training: mean and deviation of ln(sigma) (Karras et al. 2022, Table 1)."""

    p_mean: float = -1.2
    p_std: float = 1.2


class OptimizerConfig(FrozenModel):
    """Adam with a constant rate after `warmup_images`, falling linearly over the last `decay_images`."""

    learning_rate: float = Field(default=1e-3, gt=0)
    final_learning_rate: float = Field(default=5e-5, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_images: int = Field(default=10_000, ge=0)
    decay_images: int = Field(default=0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)


class PretrainConfig(FrozenModel):
    """A whole run.

    Attributes:
        name: of the model that is published.
        network: constructor arguments for `models.build`.
        images: length of the run, in training images seen.
        ema_images: half-life of the weights' moving average, in images; early on at most 5 % of the
            images seen.
        precision: of the forward and backward pass; weights and sums stay float32.
        compile: use `torch.compile` (a minute or two at start, then faster; needs a C++ compiler).
        licence: of the published weights.
        golden_class: class of the image that servers check the published weights by.
        checkpoint_seconds, grid_images: how often the state is saved and a sample grid is drawn.
    """

    name: str
    network: dict[str, Any]
    data: DataConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    images: int = Field(gt=0)
    batch: int = Field(default=64, ge=1)
    ema_images: int = Field(default=50_000, ge=1)
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = True
    licence: str = "Apache-2.0"
    golden_class: int = Field(default=0, ge=0)
    checkpoint_seconds: float = Field(default=180.0, gt=0)
    grid_images: int = Field(default=50_000, ge=1)


def load_config(path: Path) -> PretrainConfig:
    """Read a run's TOML file; relative paths in it are relative to the working directory.

    Raises:
        TrainerError: the file is missing, is not TOML, or holds a wrong value; the message names it.
    """
    try:
        return PretrainConfig.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise TrainerError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise TrainerError(f"{path}: {error}") from error
