"""From a solver's name and a number of steps to its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engines.solvers.dpm_solver_v3 import dpm_solver_v3
from engines.solvers.euler import euler
from engines.solvers.heun import heun, stochastic_heun
from engines.solvers.table import SolverTable
from models.spec import DiffusionDefaults

SOLVERS: Mapping[str, Callable[[int, DiffusionDefaults], SolverTable]] = {
    "heun": lambda steps, d: heun(steps, d.sigma_min, d.sigma_max, d.rho),
    "heun-stochastic": lambda steps, d: stochastic_heun(steps, d.sigma_min, d.sigma_max, d.rho, d.churn),
    "euler": lambda steps, d: euler(steps, d.sigma_min, d.sigma_max, d.rho),
    "dpm-solver-v3": lambda steps, d: dpm_solver_v3(steps, d.sigma_min, d.sigma_max, d.rho),
}
"""Name of each solver, as requests give it, to its table's function of (steps, the model's noise range)."""


def plan(solver: str, steps: int, defaults: DiffusionDefaults) -> SolverTable:
    """Return the table of a request.

    Raises:
        ValueError: no such solver, or a number of steps that it does not take.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    return SOLVERS[solver](steps, defaults)
