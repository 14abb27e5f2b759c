"""What a request to a diffusion model may say, and what it means where it says nothing."""

from __future__ import annotations

import dataclasses

from engines.base import ImageRequest
from engines.errors import InvalidRequestError
from engines.request_checks import check_common, require
from engines.solvers import plan
from models.spec import DiffusionDefaults

MAX_STEPS = 1000
_VAR_ONLY = ("temperature", "top_k", "top_p", "var_raw_cfg")


def resolve(
    request: ImageRequest, defaults: DiffusionDefaults, *, num_classes: int, guided: bool
) -> ImageRequest:
    """Check every field of a request and fill in the defaults.

    Args:
        request: what was asked.
        defaults: the model's.
        num_classes: 0 for an unconditional model.
        guided: whether the model has something to be guided by.

    Raises:
        InvalidRequestError: a field that diffusion models do not have, or a value out of its range.
    """
    check_common(request, num_classes)
    require(
        guided or request.cfg == 1.0, "cfg", f"this model has no guide: cfg must be 1.0, got {request.cfg}"
    )
    for field in _VAR_ONLY:
        require(
            getattr(request, field) is None, field, f"{field} is for VAR models, this is a diffusion model"
        )
    steps = defaults.steps if request.steps is None else request.steps
    solver = defaults.solver if request.solver is None else request.solver
    require(1 <= steps <= MAX_STEPS, "steps", f"steps must be 1 to {MAX_STEPS}, got {steps}")
    try:
        plan(solver, steps, defaults)
    except ValueError as error:
        field = "solver" if str(error).startswith("solver") else "steps"
        raise InvalidRequestError(field, str(error)) from error
    return dataclasses.replace(request, steps=steps, solver=solver)
