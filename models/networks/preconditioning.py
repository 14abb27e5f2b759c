"""EDM's preconditioning (Karras et al. 2022, arXiv 2206.00364, Eq. 7 and Table 1, column "Ours")."""

from __future__ import annotations

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
