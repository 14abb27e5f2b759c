"""A solver written out as numbers: what each call evaluates, and what it makes of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SolverCall:
    """One evaluation of the denoiser and the linear update that follows it.

    A row's state is K slots of image size; slot 0 is the point to evaluate. With D the denoised estimate of
    slot 0 at `sigma`, the new slots are `update` applied to [slot 0, ..., slot K-1, D].

    Attributes:
        sigma: noise level of slot 0.
        update: (K, K + 1), float64.
        noise: standard deviation of the fresh normal noise that is then added to slot 0.
    """

    sigma: float
    update: Matrix
    noise: float = 0.0


@dataclass(frozen=True)
class SolverTable:
    """A whole trajectory; slot 0 after the last call is the sample.

    Attributes:
        start: slot 0 begins as standard normal latents times this; the other slots as zeros.
        start_noise: standard deviation of fresh noise added to that.
        calls: in order; every update has the same K.
    """

    start: float
    start_noise: float
    calls: tuple[SolverCall, ...]

    @property
    def slots(self) -> int:
        """The number K of slots of a row's state."""
        return int(self.calls[0].update.shape[0])


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Matrix:
    """Return `steps` noise levels from `sigma_max` down to `sigma_min` (Karras et al. 2022, Eq. 5)."""
    ramp = np.linspace(0, 1, steps) if steps > 1 else np.zeros(1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return np.asarray((high + ramp * (low - high)) ** rho)
