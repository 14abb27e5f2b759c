"""torch.compile as engines use it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engines.errors import EngineError

SIZES = 64
"""Shapes that one function is compiled for at most: batch sizes of its lanes or scales."""


def compile_function(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `function` compiled anew for every set of shapes, as one graph.

    Raises:
        EngineError: when first called, where the compiler or what it needs is missing.
    """
    compiled: Callable[..., Tensor] = torch.compile(  # type: ignore[call-overload] # which lacks the last two
        function,
        fullgraph=True,
        dynamic=False,
        # Sums of a row in one order whatever the batch, and no choice that is left to a clock.
        options={"batch_invariant": True},
        recompile_limit=SIZES,
        isolate_recompiles=True,  # versions share code, not what was compiled of it
    )

    def call(*inputs: Tensor | None) -> Tensor:
        try:
            return compiled(*inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            # What follows the first paragraph is advice on torch's logs.
            reason = " ".join(str(error).partition("\n\n")[0].split())
            raise EngineError(
                f"torch.compile fails: {reason}. It needs Triton on a GPU and a C++ compiler on a CPU; the "
                "backend 'torch' needs neither"
            ) from error

    return call
