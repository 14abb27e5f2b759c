"""log p_theta - log p_ref of images, for DDO (Zheng et al. 2025, arXiv 2503.01103, Eq. 13).

Why float32, always. r is the small difference of two large sums. When every tensor of a small denoiser has
moved by 0.1 %, r of 3x16x16 images is 0.03 between sums of 720. Against float64 it is then off by 0.2 % of
its size in float32, by 42 % in float16, and by 217 % in bfloat16, where every fourth sign is wrong. TF32
has the mantissa of float16, and its switch is the whole process's: the caller leaves it off.

Why a sum. beta is a number per nat of all dimensions. With the same beta a mean over the 768 dimensions has a
gradient 768 times smaller, and where the sum's discriminator sigmoid(beta r) is 0.17 from 1/2 on average, the
mean's is 0.0002: nothing is told apart, nothing saturates, and no error says so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.objectives.denoising import Denoiser, weighted_errors
from trainer.objectives.likelihood import TokenPredictor, token_losses


def denoising_log_density(
    denoiser: Denoiser,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: Tensor,
    noise: Tensor,
    sigma_data: float,
) -> Tensor:
    """Return -SUM over channels and pixels of lambda(sigma) (D(x + sigma n) - x)^2, (B,).

    That is a one-draw estimate of log p(x), up to a constant that no network changes and with EDM's lambda
    for the bound's own weight. Autocast is off inside.

    Args:
        denoiser: maps (x, sigma, labels) to the denoised estimate.
        images: (B, C, H, W), float32.
        labels: (B, classes) one-hot.
        sigma: (B,), float32.
        noise: like `images`, standard normal.
        sigma_data: of the denoiser's preconditioning.
    """
    with torch.autocast(images.device.type, enabled=False):
        errors = weighted_errors(denoiser, images, labels, sigma=sigma, noise=noise, sigma_data=sigma_data)
        return -errors.sum(dim=(1, 2, 3))


def denoising_log_ratio(
    network: Denoiser,
    reference: Denoiser,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: Tensor,
    noise: Tensor,
    sigma_data: float,
) -> Tensor:
    """Return r = log p_theta(x) - log p_ref(x) from one draw of (sigma, noise) a row, (B,).

    Both networks see the same draw, or the difference would be that of two draws. The estimate of DDO also
    gives a real image and its fake the same draw: stack both, repeat `sigma` and `noise`, and each network is
    called once. Arguments are those of `denoising_log_density`; no gradient reaches the reference.
    """
    with torch.no_grad():
        frozen = denoising_log_density(
            reference, images, labels, sigma=sigma, noise=noise, sigma_data=sigma_data
        )
    return (
        denoising_log_density(network, images, labels, sigma=sigma, noise=noise, sigma_data=sigma_data)
        - frozen
    )


def token_log_probability(
    network: TokenPredictor, class_ids: Tensor, ids: Tensor, var_input: Tensor
) -> Tensor:
    """Return the exact log p of all tokens given the class, (B,) float32; arguments as `token_losses`."""
    return -token_losses(network, class_ids, ids, var_input).sum(dim=1)


def token_log_ratio(
    network: TokenPredictor, reference: TokenPredictor, class_ids: Tensor, ids: Tensor, var_input: Tensor
) -> Tensor:
    """Return r = log p_theta - log p_ref of the tokens, (B,); no gradient reaches the reference."""
    with torch.no_grad():
        frozen = token_log_probability(reference, class_ids, ids, var_input)
    return token_log_probability(network, class_ids, ids, var_input) - frozen
