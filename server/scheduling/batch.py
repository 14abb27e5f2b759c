"""The rows of one engine call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic

from server.scheduling.schedulable import T, width_of


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Rows that share a call, in their order.

    Attributes:
        model: which makes them.
        lane: the kind of call.
        rows: at least one.
        widths: as how many rows each of them counts.
        width: all of them together.
    """

    model: Hashable
    lane: str
    rows: Sequence[T]
    widths: tuple[int, ...]
    width: int

    @classmethod
    def of(cls, rows: Sequence[T]) -> Batch[T]:
        """Return the call of rows of one model and lane."""
        lane = rows[0].lane
        widths = tuple(width_of(row.path, lane) for row in rows)
        return cls(rows[0].model, lane, rows, widths, sum(widths))

    @property
    def stands(self) -> bool:
        """Whether the next call of every row is still of this kind."""
        return {row.lane for row in self.rows} == {self.lane}
