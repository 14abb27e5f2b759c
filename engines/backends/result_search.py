"""The search for batch sizes where only results can be seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engines.buckets import Buckets, powers_of_two

PROBES = 4
"""Rows that the search tries: the result of one alone may hide a difference by rounding."""

CALL_COST = 0.5
"""What a call costs beside its rows, in rows: on a CPU measured with 9 M parameters, with more it is less."""


def search_by_results(run: Callable[[int, int], Tensor], most: int) -> Buckets:
    """Find the batch sizes up to `most` at which several rows have the same results, and time them.

    Args:
        run: as `Backend.find_buckets` is given.
        most: largest size to try.

    Raises:
        EngineError: no size gives reproducible results.
    """

    def probe(size: int) -> Tensor:
        return torch.cat([run(size, number).flatten(1) for number in range(PROBES)], dim=1)

    found = Buckets.find(probe, powers_of_two(most), CALL_COST)
    return found.timed(lambda size: run(size, 0).flatten()[0].item())  # waits for the device
