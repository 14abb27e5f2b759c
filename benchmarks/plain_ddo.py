"""DDO of a denoiser as a plain eager loop: what the trainer's step is measured against."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.objectives.config import DdoStrength
from trainer.objectives.diffusion_ddo import PairedBatch

AVERAGE_KEPT = 0.999


class PlainDdo:
    """Four evaluations, one after the other, with the defaults of PyTorch (Zheng et al. 2025, Eq. 13).

    Nothing but the drawing of batches is shared with the trainer, so that equal gradients say something.

    Args:
        network: the denoiser to train, without dropout.
        reference: the frozen one.
        strength: alpha and beta.
        rate: of learning.
    """

    def __init__(self, network: nn.Module, reference: nn.Module, strength: DdoStrength, rate: float) -> None:
        self.network = network
        self._reference = reference
        self._strength = strength
        self._optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
        self._average = copy.deepcopy(network)

    def step(self, batch: PairedBatch) -> None:
        """Make one step; its gradient stays in the network."""
        self._optimizer.zero_grad()
        self._loss(batch).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        with torch.no_grad():
            for kept, new in zip(self._average.parameters(), self.network.parameters(), strict=True):
                kept.mul_(AVERAGE_KEPT).add_(new, alpha=1 - AVERAGE_KEPT)

    def _loss(self, batch: PairedBatch) -> Tensor:
        (real, fake), (real_labels, fake_labels) = batch.images.chunk(2), batch.labels.chunk(2)
        sigma, noise = batch.sigma.reshape(-1, 1, 1, 1), batch.noise
        with torch.no_grad():
            frozen_real = log_density(self._reference, real, real_labels, sigma, noise)
            frozen_fake = log_density(self._reference, fake, fake_labels, sigma, noise)
        ratio_real = log_density(self.network, real, real_labels, sigma, noise) - frozen_real
        ratio_fake = log_density(self.network, fake, fake_labels, sigma, noise) - frozen_fake
        alpha, beta = self._strength.alpha, self._strength.beta
        return -F.logsigmoid(beta * ratio_real).mean() - alpha * F.logsigmoid(-beta * ratio_fake).mean()


def log_density(network: nn.Module, images: Tensor, labels: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Return -SUM of lambda(sigma) (D(x + sigma n) - x)^2 over channels and pixels, (B,) float32.

    lambda = 1 / sigma^2 + 1 / sigma_data^2 (Karras et al. 2022, arXiv 2206.00364, Table 1).

    Args:
        network: the denoiser D.
        images: x, (B, C, H, W) float32.
        labels: (B, classes) one-hot.
        sigma: (B, 1, 1, 1).
        noise: n, like `images`, standard normal.
    """
    denoised: Tensor = network(images + sigma * noise, sigma.flatten(), labels)
    weight = 1 / sigma**2 + 1 / network.sigma_data**2  # type: ignore[operator]
    return -(weight * (denoised - images) ** 2).sum(dim=(1, 2, 3))
