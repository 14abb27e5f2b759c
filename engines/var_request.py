"""What a request to a VAR model may say, and what it means where it says nothing."""

from __future__ import annotations

import dataclasses
import math

from engines.base import ImageRequest
from engines.request_checks import check_common, is_scale, require
from models.spec import VarDefaults


def settings_of(request: ImageRequest, defaults: VarDefaults) -> VarDefaults:
    """Return the sampling settings of a request, the model's where it has none."""
    asked = {"temperature": request.temperature, "top_k": request.top_k, "top_p": request.top_p}
    return defaults.model_copy(update={name: value for name, value in asked.items() if value is not None})


def resolve(
    request: ImageRequest, defaults: VarDefaults, *, num_classes: int, vocab_size: int
) -> ImageRequest:
    """Check every field of a request and fill in the defaults.

    Raises:
        InvalidRequestError: a field that VAR does not have, or a value out of its range.
    """
    settings = settings_of(request, defaults)
    raw = request.var_raw_cfg
    check_common(request, num_classes)
    require(
        request.steps is None, "steps", "steps is for diffusion models: VAR decodes a fixed set of scales"
    )
    require(
        request.solver is None, "solver", "solver is for diffusion models: VAR decodes a fixed set of scales"
    )
    require(
        raw is None or request.cfg == 1.0,
        "var_raw_cfg",
        "give cfg or var_raw_cfg, not both: they are one setting",
    )
    require(raw is None or is_scale(raw), "var_raw_cfg", f"var_raw_cfg must be 0 or more, got {raw}")
    require(
        settings.temperature > 0 and math.isfinite(settings.temperature),
        "temperature",
        f"temperature must be above 0, got {settings.temperature}",
    )
    require(
        0 <= settings.top_k <= vocab_size,
        "top_k",
        f"top_k must be 0 (off) to {vocab_size}, the size of the codebook, got {settings.top_k}",
    )
    require(0 <= settings.top_p <= 1, "top_p", f"top_p must be 0 (off) to 1, got {settings.top_p}")
    return dataclasses.replace(
        request, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p
    )
