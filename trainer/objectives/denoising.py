"""Maximum-likelihood training of a denoiser (Karras et al. 2022, arXiv 2206.00364, Eq. 8 and Table 1)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]


def weighted_errors(
    denoiser: Denoiser,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: Tensor,
    noise: Tensor,
    sigma_data: float,
) -> Tensor:
    """Return lambda(sigma) (D(x + sigma n) - x)^2 of every channel and pixel, (B, C, H, W).

    Args:
        denoiser: maps (x, sigma, labels) to the denoised estimate.
        images: (B, C, H, W) in [-1, 1].
        labels: (B, classes) one-hot.
        sigma: (B,).
        noise: like `images`, standard normal.
        sigma_data: of the denoiser's preconditioning, in
            lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2.
    """
    level = sigma.reshape(-1, 1, 1, 1)
    weight = (level**2 + sigma_data**2) / (level * sigma_data) ** 2
    return weight * (denoiser(images + level * noise, sigma, labels) - images).square()


def denoising_loss(
    denoiser: Denoiser,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: Tensor,
    noise: Tensor,
    sigma_data: float,
) -> Tensor:
    """Return EDM's loss: `weighted_errors` averaged over the batch, its channels and its pixels."""
    return weighted_errors(denoiser, images, labels, sigma=sigma, noise=noise, sigma_data=sigma_data).mean()
