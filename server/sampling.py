"""From what a client asks for to what an engine makes."""

from __future__ import annotations

from typing import Any

from engines.base import Engine, ImageRequest
from engines.errors import InvalidRequestError
from server.api.schemas import Sampling
from server.errors import FieldError, InvalidInputError

# Drawn seeds stay below what a JavaScript client can repeat exactly.
DRAWN_SEEDS = 2**53
MAX_SEED = 2**63 - 1


def resolve(engine: Engine[Any], wanted: Sampling, *, class_id: int | None, seed: int) -> ImageRequest:
    """Return the request for one image, every default of its model filled in.

    Raises:
        InvalidInputError: the model cannot make it.
    """
    request = ImageRequest(
        class_id=class_id,
        seed=seed,
        cfg=wanted.cfg,
        steps=wanted.steps,
        solver=wanted.solver,
        temperature=wanted.temperature,
        top_k=wanted.top_k,
        top_p=wanted.top_p,
        var_raw_cfg=wanted.var_raw_cfg,
    )
    try:
        return engine.resolve(request)
    except InvalidRequestError as error:
        raise InvalidInputError([FieldError(error.field, str(error))]) from error
