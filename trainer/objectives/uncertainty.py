"""Maximum-likelihood training of a denoiser that knows its error (Karras et al. 2024, arXiv 2312.02696)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from trainer.objectives.denoising import weighted_errors


class UncertainDenoiser(Protocol):
    """A denoiser with an estimate of its own error at each noise level."""

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor, /) -> Tensor:
        """Return the denoised estimate (B, C, H, W)."""
        ...

    def logvar(self, sigma: Tensor) -> Tensor:
        """Return u(sigma), the logarithm of the expected weighted error, (B, 1, 1, 1)."""
        ...


def uncertainty_loss(
    denoiser: UncertainDenoiser,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: Tensor,
    noise: Tensor,
    sigma_data: float,
) -> Tensor:
    """Return EDM2's loss, lambda(sigma) / e^u(sigma) |D - x|^2 + u(sigma), as a mean like `denoising_loss`.

    The loss of each noise level is divided by its own size, so that all levels pull alike; the added u keeps
    the division honest: it is least where e^u is the expected weighted error (Eq. 14, 15).

    Args:
        denoiser: maps (x, sigma, labels) to the denoised estimate, and tells its uncertainty.
        images: (B, C, H, W).
        labels: (B, classes) one-hot.
        sigma: (B,).
        noise: like `images`, standard normal.
        sigma_data: of the denoiser's preconditioning.
    """
    errors = weighted_errors(denoiser, images, labels, sigma=sigma, noise=noise, sigma_data=sigma_data)
    logvar = denoiser.logvar(sigma)
    return (errors / logvar.exp() + logvar).mean()
