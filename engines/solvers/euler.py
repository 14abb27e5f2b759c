"""Euler's method for the probability-flow ODE dx/dsigma = (x - D) / sigma (Karras et al. 2022, Eq. 1, 3)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from engines.solvers.table import SolverCall, SolverTable, karras_sigmas


def euler(steps: int, sigma_min: float, sigma_max: float, rho: float) -> SolverTable:
    """Return the table of `steps` evaluations, the last step ending at noise level 0."""
    sigmas = np.append(karras_sigmas(steps, sigma_min, sigma_max, rho), 0.0)
    calls = tuple(
        SolverCall(float(now), np.array([[after / now, 1 - after / now]])) for now, after in pairwise(sigmas)
    )
    return SolverTable(start=float(sigmas[0]), start_noise=0.0, calls=calls)
