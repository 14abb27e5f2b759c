"""What each method makes of a round: the candidates that are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from models.networks.vqvae import VQVAE
from models.version import ModelVersion
from trainer.data.source import TrainingImages
from trainer.data.tokens import TokenizedImages
from trainer.objectives.base import Objective
from trainer.objectives.config import DdoStrength, Denoising, Likelihood, Uncertainty
from trainer.objectives.diffusion import DiffusionObjective
from trainer.objectives.diffusion_ddo import DiffusionDdo
from trainer.objectives.tokens import LikelihoodObjective, VarDdo
from trainer.rounds.config import DiffusionDdoMethod, Method, NeonMethod, VarDdoMethod
from trainer.rounds.networks import reference_network, trained_network
from trainer.rounds.tokens import LabelledTokens, tokens_of
from trainer.rounds.view import View
from trainer.training.config import TrainingConfig
from trainer.training.processes import Processes


class Candidate(NamedTuple):
    """One way to improve on the reference.

    Attributes:
        name: of its folder.
        description: for the lineage.
        strengths: of Neon's step away from the weights; None: the weights themselves.
        build: makes the network to train and its objective.
    """

    name: str
    description: str
    strengths: Sequence[float | None]
    build: Callable[[], tuple[nn.Module, Objective[Any]]]


@dataclass(frozen=True)
class Material:
    """What a round starts from.

    Attributes:
        reference: the best version so far.
        real: images of the data.
        fake: images of the reference, or their tokens.
        run: folder of the run, that holds the tokens of `real` for VAR.
        directory: of the round, that holds the tokens of `fake`.
        training: of each candidate.
        processes: who trains.
        view: shows it.
    """

    reference: ModelVersion
    real: TrainingImages
    fake: TrainingImages | LabelledTokens
    run: Path
    directory: Path
    training: TrainingConfig
    processes: Processes
    view: View

    def reference_network(self) -> nn.Module:
        """Build the frozen reference."""
        network = reference_network(self.reference, self.processes.device)
        if self.training.compile:
            # Compiled into the loss, where the loop has the trained network in this layout.
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def real_tokens(self) -> TokenizedImages:
        """Encode the real images, or read what was encoded before."""
        return self._tokens(self.run / "tokens.npz", self.real)

    def fake_tokens(self) -> TokenizedImages:
        """Return the tokens of the fakes; images are encoded again: through pixels, as the real ones."""
        if isinstance(self.fake, LabelledTokens):
            return self.fake.of(self._vqvae())
        return self._tokens(self.directory / "pool-tokens.npz", self.fake)

    def fake_images(self) -> TrainingImages:
        """Return the fakes of diffusion."""
        assert not isinstance(self.fake, LabelledTokens)
        return self.fake

    def _tokens(self, path: Path, images: TrainingImages) -> TokenizedImages:
        return tokens_of(path, self._vqvae(), images, self.processes, self.view.progress)

    def _vqvae(self) -> VQVAE:
        return cast(VQVAE, self.reference.network("vqvae")).requires_grad_(False).to(self.processes.device)


def candidates(method: Method, material: Material) -> list[Candidate]:
    """Return what a round trains, in order; every process must call it.

    Raises:
        DataError: an image cannot be read, or its tokens not be kept.
    """
    match method:
        case DiffusionDdoMethod():
            return [_ddo(s, partial(_diffusion_ddo, material, method, s)) for s in method.strengths]
        case VarDdoMethod():
            real, fake = material.real_tokens(), material.fake_tokens()
            return [_ddo(s, partial(_var_ddo, material, method, s, real, fake)) for s in method.strengths]
        case NeonMethod(weights=weights, objective=objective):
            build = partial(_self_training, material, objective)
            return [Candidate("self", "Neon, self-training", weights, build)]


def _ddo(strength: DdoStrength, build: Callable[[], tuple[nn.Module, Objective[Any]]]) -> Candidate:
    alpha, beta = f"{strength.alpha:g}", f"{strength.beta:g}"
    return Candidate(f"alpha{alpha}-beta{beta}", f"DDO, alpha {alpha}, beta {beta}", (None,), build)


def _diffusion_ddo(
    material: Material, method: DiffusionDdoMethod, strength: DdoStrength
) -> tuple[nn.Module, Objective[Any]]:
    device = material.processes.device
    objective = DiffusionDdo(
        material.real,
        material.fake_images(),
        material.reference_network(),
        method,
        strength,
        seed=material.training.seed,
        device=device,
    )
    return trained_network(material.reference, device, dropout=False, uncertainty=False), objective


def _var_ddo(
    material: Material,
    method: VarDdoMethod,
    strength: DdoStrength,
    real: TokenizedImages,
    fake: TokenizedImages,
) -> tuple[nn.Module, Objective[Any]]:
    device = material.processes.device
    objective = VarDdo(
        real,
        fake,
        material.reference_network(),
        strength,
        label_drop=method.label_drop,
        unconditional=method.unconditional,
        seed=material.training.seed,
        device=device,
    )
    return trained_network(material.reference, device, dropout=False, uncertainty=False), objective


def _self_training(
    material: Material, loss: Denoising | Uncertainty | Likelihood
) -> tuple[nn.Module, Objective[Any]]:
    seed, device = material.training.seed, material.processes.device
    uncertainty = isinstance(loss, Uncertainty)
    network = trained_network(material.reference, device, dropout=True, uncertainty=uncertainty)
    if isinstance(loss, Likelihood):
        tokens = material.fake_tokens()
        return network, LikelihoodObjective(tokens, loss.label_drop, seed=seed, device=device)
    fakes = material.fake_images()
    return network, DiffusionObjective(fakes, loss, seed=seed, device=device, uncertainty=uncertainty)
