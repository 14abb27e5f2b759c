"""What every request must satisfy, whatever the model's family."""

from __future__ import annotations

import math

from engines.base import ImageRequest
from engines.errors import InvalidRequestError

SEEDS = 2**63


def require(holds: bool, field: str, message: str) -> None:
    """Raise InvalidRequestError about `field` unless `holds`."""
    if not holds:
        raise InvalidRequestError(field, message)


def check_common(request: ImageRequest, num_classes: int) -> None:
    """Check class, seed and guidance scale; `num_classes` is 0 for an unconditional model.

    Raises:
        InvalidRequestError: one of them is out of its range.
    """
    if num_classes:
        require(
            request.class_id is not None and 0 <= request.class_id < num_classes,
            "class_id",
            f"class_id must be 0 to {num_classes - 1}, got {request.class_id}; "
            "the model's class list names them",
        )
    else:
        require(request.class_id is None, "class_id", "this model is unconditional: it has no classes")
    require(0 <= request.seed < SEEDS, "seed", f"seed must be 0 to 2^63 - 1, got {request.seed}")
    require(is_scale(request.cfg), "cfg", f"cfg must be 0 or more, got {request.cfg}")


def is_scale(value: float) -> bool:
    """Tell whether `value` can be a guidance scale."""
    return value >= 0 and math.isfinite(value)
