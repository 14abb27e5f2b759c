"""Maximum-likelihood training of any of the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from rich.progress import Progress
from torch import nn

from models.networks import build
from models.networks.edm import EDMPrecond
from models.networks.edm2 import Precond
from models.networks.var import VAR
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
    torch.manual_seed(config.training.seed)
    network = build(config.network)
    if config.start is not None:
        _start_from(config.start, network)
    network.train().to(processes.device)
    _check_shape(network, config, images)
    _check_classes(network, config, images)
    objective = _objective(config, network, images, processes, progress)
    return Loop(network, objective, config.training, directory, processes), images


def _objective(
    config: PretrainConfig,
    network: nn.Module,
    images: TrainingImages,
    processes: Processes,
    progress: Progress,
) -> Objective[Any]:
    seed, device = config.training.seed, processes.device
    match config.objective:
        case Denoising() as levels:
            return DiffusionObjective(images, levels, seed=seed, device=device)
        case Uncertainty() as levels:
            return DiffusionObjective(images, levels, seed=seed, device=device, uncertainty=True)
        case Tokenizer(decoder_only=decoder_only):
            if decoder_only:
                cast(VQVAE, network).freeze_codes()
            return TokenizerObjective(images, seed=seed, device=device)
        case Likelihood(label_drop=label_drop):
            vqvae = _load_tokenizer(cast(Path, config.tokenizer), cast(VAR, network))
            _check_shape(vqvae, config, images)
            tokens = TokenizedImages.encode(vqvae.to(device), images, progress)
            return LikelihoodObjective(tokens, label_drop, seed=seed, device=device)


def _start_from(path: Path, network: nn.Module) -> None:
    finished, _ = load_weights(path)
    try:
        network.load_state_dict(finished.state_dict())
    except RuntimeError as error:
        raise TrainerError(f"{path} holds another network than [network] describes: {error}") from error


def _load_tokenizer(path: Path, var: VAR) -> VQVAE:
    vqvae, init = load_weights(path)
    if not isinstance(vqvae, VQVAE):
        raise TrainerError(f"{path} holds no tokenizer but {init['class_name']}")
    codes = vqvae.quantize.embedding
    for name, theirs, ours in (
        ("patch_nums", vqvae.scales.sides, var.scales.sides),
        ("vocab_size", codes.num_embeddings, var.vocab_size),
        ("z_channels", codes.embedding_dim, var.z_channels),
    ):
        if theirs != ours:
            raise TrainerError(f"{path} has {name} = {theirs}, the VAR {ours}: make them equal")
    return vqvae.requires_grad_(False)


def _check_shape(network: nn.Module, config: PretrainConfig, images: TrainingImages) -> None:
    match network:
        case EDMPrecond() | Precond():
            expected = (network.img_channels, network.img_resolution, network.img_resolution)
        case VQVAE():
            expected = (3, network.resolution, network.resolution)
        case _:
            return
    if images.shape != expected:
        raise TrainerError(
            f"{config.data.path} has images of (channels, height, width) {images.shape} after folding by "
            f"{config.data.fold}, the network takes {expected}"
        )


def _check_classes(network: nn.Module, config: PretrainConfig, images: TrainingImages) -> None:
    match network:
        case EDMPrecond() | Precond():
            classes = network.label_dim
        case VAR():
            classes = network.num_classes
        case _:
            return
    if classes and classes != len(images.class_names):
        raise TrainerError(f"{config.data.path} has {len(images.class_names)} classes, the network {classes}")
    if config.golden_class >= max(1, classes):
        raise TrainerError(f"golden_class is {config.golden_class}, but the network has {classes} classes")
