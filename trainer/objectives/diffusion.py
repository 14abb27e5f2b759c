"""Maximum-likelihood training of EDM and EDM2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.draws import Draws
from trainer.data.order import Order
from trainer.data.source import Indices, TrainingImages
from trainer.objectives.config import NoiseLevels
from trainer.objectives.denoising import denoising_loss
from trainer.objectives.uncertainty import UncertainDenoiser, uncertainty_loss


class NoisyBatch(NamedTuple):
    """Images and what is added to them.

    Attributes:
        images: (B, C, H, W).
        labels: (B, classes) one-hot.
        sigma: (B,).
        noise: like `images`, standard normal.
    """

    images: Tensor
    labels: Tensor
    sigma: Tensor
    noise: Tensor


class NoiseDraws:
    """The noise level and the noise of each row.

    Args:
        levels: distribution of ln(sigma).
        shape: (C, H, W) of an image.
        seed: of the run.
    """

    def __init__(self, levels: NoiseLevels, shape: tuple[int, int, int], seed: int) -> None:
        self._levels = levels
        self._shape = shape
        self._sigma, self._noise = Draws(seed, stream=0), Draws(seed, stream=1)

    def __call__(self, rows: range) -> tuple[Tensor, Tensor]:
        """Return sigma (B,) and standard normal noise (B, C, H, W) of these rows."""
        sigma = (self._sigma.normal(rows) * self._levels.p_std + self._levels.p_mean).exp()
        return sigma, self._noise.normal(rows, self._shape)


class DiffusionObjective:
    """EDM's loss, or EDM2's with its learned uncertainty.

    Args:
        images: real ones.
        levels: noise levels to train on.
        seed: of the order of images and of their noise.
        device: of the batches.
        uncertainty: EDM2's loss.
    """

    def __init__(
        self,
        images: TrainingImages,
        levels: NoiseLevels,
        *,
        seed: int,
        device: torch.device,
        uncertainty: bool = False,
    ) -> None:
        self._images = images
        self._order = Order(len(images), seed)
        self._noise = NoiseDraws(levels, images.shape, seed)
        self._device = device
        self._uncertainty = uncertainty

    def batch(self, rows: range) -> NoisyBatch:
        """Draw the images of these rows and their noise."""
        indices = self._order[rows.start : rows.stop]
        sigma, noise = self._noise(rows)
        labels = one_hot_labels(self._images, indices)
        batch = (self._images.read(indices), labels, sigma, noise)
        return NoisyBatch(*(tensor.to(self._device, non_blocking=True) for tensor in batch))

    def loss(self, network: nn.Module, batch: NoisyBatch) -> Mapping[str, Tensor]:
        """Return `loss`."""
        images, labels, sigma, noise = batch
        sigma_data = sigma_data_of(network)
        if self._uncertainty:
            denoiser = cast(UncertainDenoiser, network)
            loss = uncertainty_loss(denoiser, images, labels, sigma=sigma, noise=noise, sigma_data=sigma_data)
        else:
            loss = denoising_loss(network, images, labels, sigma=sigma, noise=noise, sigma_data=sigma_data)
        return {"loss": loss}


def one_hot_labels(images: TrainingImages, indices: Indices) -> Tensor:
    """Return the labels (B, classes) of the images with these indices as one-hot floats."""
    return F.one_hot(torch.from_numpy(images.labels[indices]), len(images.class_names)).float()


def sigma_data_of(network: nn.Module) -> float:
    """Return the deviation of the data that a denoiser's preconditioning assumes."""
    return float(cast(float, network.sigma_data))
