"""Heun's second-order method, deterministic and with churn (Karras et al. 2022, Algorithms 1 and 2)."""

from __future__ import annotations

import math

import numpy as np

from engines.solvers.table import Matrix, SolverCall, SolverTable, karras_sigmas
from models.spec import Churn


def heun(steps: int, sigma_min: float, sigma_max: float, rho: float) -> SolverTable:
    """Return Algorithm 1: 2 * `steps` - 1 evaluations, the last step ending at noise level 0."""
    sigmas = karras_sigmas(steps, sigma_min, sigma_max, rho)
    return _table(sigmas, sigmas)


def stochastic_heun(steps: int, sigma_min: float, sigma_max: float, rho: float, churn: Churn) -> SolverTable:
    """Return Algorithm 2: before each step the noise level is raised by fresh noise."""
    sigmas = karras_sigmas(steps, sigma_min, sigma_max, rho)
    gamma = min(churn.s_churn / steps, math.sqrt(2) - 1)
    raised = np.where((churn.s_min <= sigmas) & (sigmas <= churn.s_max), sigmas * (1 + gamma), sigmas)
    return _table(sigmas, raised, churn.s_noise)


def _table(sigmas: Matrix, raised: Matrix, s_noise: float = 1.0) -> SolverTable:
    """Write out steps that begin at `raised`, at or above `sigmas`, and end at the next of `sigmas`.

    Slot 0 is x before the predictor and x' before the corrector; slot 1 keeps x + h/2 d meanwhile.
    """
    noises = s_noise * np.sqrt(raised**2 - sigmas**2)
    ends = np.append(sigmas[1:], 0.0)
    calls = []
    for step, (sigma, end) in enumerate(zip(raised, ends, strict=True)):
        ratio = (end - sigma) / sigma  # h / sigma, so that h d = ratio (x - D)
        predict = np.array([[1 + ratio, 0, -ratio], [1 + ratio / 2, 0, -ratio / 2]])
        calls.append(SolverCall(float(sigma), predict))
        if end > 0:
            half = (end - sigma) / (2 * end)  # h/2 d' = half (x' - D')
            correct = np.array([[half, 1, -half], [0, 0, 0]])
            calls.append(SolverCall(float(end), correct, noise=float(noises[step + 1])))
    return SolverTable(start=float(sigmas[0]), start_noise=float(noises[0]), calls=tuple(calls))
