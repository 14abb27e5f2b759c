"""DPM-Solver-v3 without empirical statistics (Zheng et al. 2023, arXiv 2310.13268, Algorithm 2).

With lambda = -ln(sigma) and the coefficients l = 1, s = 0, b = 0 the method integrates

    x_t = e^-h x_s + integral from lambda_s to lambda_t of e^(lambda - lambda_t) D(lambda) dlambda,

h = lambda_t - lambda_s, with D interpolated between evaluations: an exponential multistep method. Its
integrals are trapezoidal sums on the grid of 250 equal steps in lambda on which the statistics would live,
and noise levels are rounded to that grid; both are part of the method's definition: they show in the sample.

A step predicts with the polynomial through the last two evaluations (one in the first and in the last step).
The evaluation at the predicted point then also corrects the step that led there, by the line through its two
ends; the first step is not corrected.
"""

from __future__ import annotations

import numpy as np

from engines.solvers.table import Matrix, SolverCall, SolverTable, karras_sigmas

STATISTICS_STEPS = 250


def dpm_solver_v3(steps: int, sigma_min: float, sigma_max: float, rho: float) -> SolverTable:
    """Return the table of `steps` evaluations, the last step ending at `sigma_min`.

    Slot 0 is the predicted point, slot 1 the part of its correction that is known before its evaluation,
    slot 2 the evaluation before it.

    Raises:
        ValueError: so many steps that two noise levels fall on one point of the grid.
    """
    grid = np.linspace(-np.log(sigma_max), -np.log(sigma_min), STATISTICS_STEPS + 1)
    wanted = -np.log(karras_sigmas(steps + 1, sigma_min, sigma_max, rho))
    places = np.abs(grid - wanted[:, None]).argmin(axis=1)
    if np.any(np.diff(places) == 0):
        raise ValueError(f"{steps} steps are too many: two noise levels would fall on one point of the grid")

    calls = []
    for step in range(steps):
        # x: the state at this noise level, as a combination of [slot 0, slot 1, slot 2, D].
        x = np.array([1.0, 0, 0, 0])
        if step > 1:
            window = grid[places[step - 1] : places[step] + 1]
            x = np.array([0, 1.0, 0, _weights(window, [window[0], window[-1]])[1]])
        window = grid[places[step] : places[step + 1] + 1]
        decay = np.exp(window[0] - window[-1])
        predicted, known = decay * x, decay * x
        here, before = np.array([0, 0, 0, 1.0]), np.array([0, 0, 1.0, 0])
        if 0 < step < steps - 1:
            weights = _weights(window, [window[0], grid[places[step - 1]]])
            predicted = predicted + weights[0] * here + weights[1] * before
        else:
            predicted = predicted + _weights(window, [window[0]])[0] * here
        known = known + _weights(window, [window[0], window[-1]])[0] * here
        calls.append(SolverCall(float(np.exp(-window[0])), np.stack([predicted, known, here])))
    return SolverTable(start=sigma_max, start_noise=0.0, calls=tuple(calls))


def _weights(window: Matrix, nodes: list[float]) -> Matrix:
    """Return what evaluations at `nodes` weigh in the integral of their interpolation over `window`.

    They solve sum_i w_i (node_i - lambda_s)^k = integral of e^(lambda - lambda_t) (lambda - lambda_s)^k.
    """
    powers = np.arange(len(nodes))[:, None]
    moments = np.trapezoid(np.exp(window - window[-1]) * (window - window[0]) ** powers, window, axis=1)
    return np.linalg.solve((np.array(nodes) - window[0]) ** powers, moments)
