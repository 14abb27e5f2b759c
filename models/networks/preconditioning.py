"""EDM's preconditioning (Karras et al. 2022, arXiv 2206.00364, Eq. 7 and Table 1, column "Ours")."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Preconditioning(NamedTuple):
    """The coefficients of D(x; sigma) = c_skip x + c_out F(c_in x; c_noise).

    All are float32; c_noise is (B,), the others are (B, 1, 1, 1).
    """

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def precondition(sigma: Tensor, sigma_data: float) -> Preconditioning:
    """Return the coefficients at noise levels (B,), or a scalar, for data of deviation `sigma_data`."""
    sigma = sigma.float().reshape(-1, 1, 1, 1)
    deviation = (sigma**2 + sigma_data**2).sqrt()
    return Preconditioning(
        c_skip=sigma_data**2 / deviation**2,
        c_out=sigma * sigma_data / deviation,
        c_in=1 / deviation,
        c_noise=sigma.log().flatten() / 4,
    )


def denoise(x: Tensor, sigma: Tensor, sigma_data: float, raw: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the denoised estimate D (B, C, H, W), float32.

    Args:
        x: (B, C, H, W), data plus noise of standard deviation sigma.
        sigma: (B,) or a scalar.
        sigma_data: standard deviation of the data.
        raw: F, called as F(c_in x, c_noise) with (B, C, H, W) and (B,), float32.
    """
    x = x.float()
    c = precondition(sigma, sigma_data)
    denoised: Tensor = c.c_skip * x + c.c_out * raw(c.c_in * x, c.c_noise).float()
    return denoised
