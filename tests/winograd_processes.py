"""What torchrun starts twice, with a FOLDER: the first step of a network with wide convolutions."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tiny_runs import images
from torch import Tensor
from torch.distributed.tensor import DTensor

from models import build
from trainer.objectives.config import Denoising
from trainer.objectives.diffusion import DiffusionObjective
from trainer.training.config import OptimizerConfig, Sharding, TrainingConfig
from trainer.training.loop import Loop
from trainer.training.processes import Processes

SHARDINGS: tuple[Sharding, ...] = ("replicate", "shard")
WIDE = {
    "class_name": "EDMPrecond",
    "model_type": "SongUNet",
    "img_resolution": 4,
    "img_channels": 12,
    "label_dim": 2,
    "model_channels": 64,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def gradient(
    directory: Path, processes: Processes, *, checkpointing: bool = False, sharding: Sharding = "replicate"
) -> Tensor:
    """Return the whole gradient of the first step, two microbatches of 64 tiles each."""
    torch.manual_seed(0)
    config = TrainingConfig(
        images=128,
        batch=128,
        microbatch=64,
        activation_checkpointing=checkpointing,
        sharding=sharding,
        optimizer=OptimizerConfig(clip_norm=None),
    )
    objective = DiffusionObjective(images(), Denoising(), seed=0, device=processes.device)
    network = build(WIDE).train()
    with torch.no_grad():
        for parameter in network.parameters():  # fresh last layers are nearly zero and pass no gradient on
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    list(Loop(network, objective, config, directory, processes).run())
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return torch.cat([(g.full_tensor() if isinstance(g, DTensor) else g).flatten() for g in gradients])


def main(folder: Path) -> None:
    with Processes.join() as processes:
        for sharding in SHARDINGS:
            whole = gradient(folder / sharding, processes, sharding=sharding)
            torch.save(whole, folder / f"{sharding}-{processes.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
