"""Direct Discriminative Optimization of EDM and EDM2 (Zheng et al. 2025, arXiv 2503.01103)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.data.order import Order
from trainer.data.source import TrainingImages
from trainer.objectives.config import DdoStrength, NoiseLevels
from trainer.objectives.ddo import ddo_loss, discriminator_accuracy
from trainer.objectives.diffusion import NoiseDraws, one_hot_labels, sigma_data_of
from trainer.objectives.log_ratio import denoising_log_ratio


class PairedBatch(NamedTuple):
    """B real images, then B fakes; row i and row B + i have the same noise.

    Attributes:
        images: (2 B, C, H, W).
        labels: (2 B, classes) one-hot, each image's own.
        sigma: (B,).
        noise: (B, C, H, W), standard normal.
    """

    images: Tensor
    labels: Tensor
    sigma: Tensor
    noise: Tensor


class DiffusionDdo:
    """A real image, a fake and one draw of (sigma, noise) a row; four evaluations in two calls.

    Nothing of the reference's is kept from one pass over the data to the next: every row has fresh noise,
    so no evaluation ever comes twice.

    Args:
        real: images of the data.
        fake: images of the reference.
        reference: the frozen network, on `device`.
        levels: noise levels to compare on.
        strength: alpha and beta.
        seed: of the order of the images and of their noise.
        device: of the batches.
    """

    def __init__(
        self,
        real: TrainingImages,
        fake: TrainingImages,
        reference: nn.Module,
        levels: NoiseLevels,
        strength: DdoStrength,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self._sources = [(real, Order(len(real), seed)), (fake, Order(len(fake), seed + 1))]
        self._reference = reference
        self._strength = strength
        self._noise = NoiseDraws(levels, real.shape, seed)
        self._device = device

    def batch(self, rows: range) -> PairedBatch:
        """Draw the pairs of these rows and their noise."""
        drawn = [(images, order[rows.start : rows.stop]) for images, order in self._sources]
        images = torch.cat([images.read(indices) for images, indices in drawn])
        labels = torch.cat([one_hot_labels(images, indices) for images, indices in drawn])
        batch = (images, labels, *self._noise(rows))
        return PairedBatch(*(tensor.to(self._device, non_blocking=True) for tensor in batch))

    def loss(self, network: nn.Module, batch: PairedBatch) -> Mapping[str, Tensor]:
        """Return `loss`, the mean log-ratios `real` and `fake`, and the discriminator's `accuracy`."""
        images, labels, sigma, noise = batch
        real, fake = denoising_log_ratio(
            network,
            self._reference,
            images,
            labels,
            sigma=sigma.repeat(2),
            noise=noise.repeat(2, 1, 1, 1),
            sigma_data=sigma_data_of(network),
        ).chunk(2)
        return {
            "loss": ddo_loss(real, fake, self._strength.alpha, self._strength.beta),
            "real": real.mean(),
            "fake": fake.mean(),
            "accuracy": discriminator_accuracy(real, fake),
        }
