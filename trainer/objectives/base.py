"""What every training objective is to the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from torch import Tensor, nn

Batch = TypeVar("Batch")


class Objective(Protocol[Batch]):
    """Draws the rows of an endless stream and says what they cost.

    Everything random about a row is a pure function of its number, so a run that was killed, or one spread
    over more processes, sees the same rows.
    """

    def batch(self, rows: range) -> Batch:
        """Draw the rows with these numbers.

        Raises:
            DataError: an image cannot be read.
        """
        ...

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return means over the batch, scalars: `loss` is minimised, the others are reported."""
        ...
