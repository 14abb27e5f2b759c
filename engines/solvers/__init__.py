"""Solvers of the probability-flow ODE and its stochastic relative, as tables of linear updates."""

from engines.solvers.integrate import integrate
from engines.solvers.plan import SOLVERS, plan
from engines.solvers.table import SolverCall, SolverTable

__all__ = ["SOLVERS", "SolverCall", "SolverTable", "integrate", "plan"]
