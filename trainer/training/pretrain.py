"""Maximum-likelihood training of any of the networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from rich.progress import Progress

from models.networks import build
from models.networks.vqvae import VQVAE
from trainer.config import PretrainConfig
from trainer.data.open import open_images
from trainer.data.source import TrainingImages
from trainer.data.tokens import TokenizedImages
from trainer.errors import TrainerError
from trainer.objectives.base import Objective
from trainer.objectives.config import Denoising, Likelihood, Tokenizer, Uncertainty
from trainer.objectives.diffusion import DiffusionObjective
from trainer.objectives.tokenizer import TokenizerObjective
from trainer.objectives.tokens import LikelihoodObjective
from trainer.training.loop import Loop
from trainer.training.processes import Processes
from trainer.weights import load_weights


def pretraining(
    config: PretrainConfig, directory: Path, processes: Processes, progress: Progress
) -> tuple[Loop[Any], TrainingImages]:
    """Build the loop of a run in `directory`, and the images that it sees.

    Raises:
        TrainerError: data, tokenizer or saved state are not as they must be.
        ModelError: the network's arguments are wrong.
    """
    images = open_images(config.data)
    _check_geometry(config, images)
    torch.manual_seed(config.training.seed)
    network = build(config.network).train().to(processes.device)
    objective = _objective(config, images, processes, progress)
    return Loop(network, objective, config.training, directory, processes), images


def _load_tokenizer(path: Path, var: Mapping[str, Any]) -> VQVAE:
    network, init = load_weights(path)
    if not isinstance(network, VQVAE):
        raise TrainerError(f"{path} holds no tokenizer but {init.get('class_name')}")
    for name in ("patch_nums", "vocab_size", "z_channels"):
        if var.get(name) != init[name]:
            raise TrainerError(f"{path} has {name} = {init[name]}, the VAR {var.get(name)}: make them equal")
    return network.requires_grad_(False)


def _objective(
    config: PretrainConfig, images: TrainingImages, processes: Processes, progress: Progress
) -> Objective[Any]:
    seed, device = config.training.seed, processes.device
    match config.objective:
        case Denoising() as levels:
            return DiffusionObjective(images, levels, seed=seed, device=device)
        case Uncertainty() as levels:
            return DiffusionObjective(images, levels, seed=seed, device=device, uncertainty=True)
        case Tokenizer():
            return TokenizerObjective(images, seed=seed, device=device)
        case Likelihood(label_drop=label_drop):
            vqvae = _load_tokenizer(cast(Path, config.tokenizer), config.network).to(device)
            tokens = TokenizedImages.encode(vqvae, images, progress)
            return LikelihoodObjective(tokens, label_drop, seed=seed, device=device)


def _check_geometry(config: PretrainConfig, images: TrainingImages) -> None:
    init = config.network
    if "img_resolution" in init:
        side, classes = init["img_resolution"], init.get("label_dim", 0)
        expected = (init["img_channels"], side, side)
        if images.shape != expected:
            raise TrainerError(
                f"{config.data.path} has images of (channels, height, width) {images.shape} after folding by "
                f"{config.data.fold}, the network takes {expected}"
            )
    else:
        classes = init.get("num_classes", len(images.class_names))
    if classes and classes != len(images.class_names):
        raise TrainerError(f"{config.data.path} has {len(images.class_names)} classes, the network {classes}")
