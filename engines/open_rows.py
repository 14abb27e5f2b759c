"""The rows that an engine has open, and what may be done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from engines.base import Row
from engines.errors import EngineError

R = TypeVar("R", bound=Row)


class OpenRows(Generic[R]):
    """At most `capacity` rows, of which at most `max_rows` go into one call."""

    def __init__(self, capacity: int, max_rows: int) -> None:
        self._capacity = capacity
        self._max_rows = max_rows
        self._rows: set[R] = set()

    def check_room(self) -> None:
        """Raise EngineError if all places are taken."""
        if len(self._rows) == self._capacity:
            raise EngineError(f"{self._capacity} rows are open already; close one first")

    def add(self, row: R) -> R:
        """Take a row in and return it."""
        self._rows.add(row)
        return row

    def check_call(self, rows: Sequence[R]) -> None:
        """Raise EngineError about too many rows, rows of different lanes, finished or closed ones."""
        if len(rows) > self._max_rows:
            raise EngineError(f"{len(rows)} rows do not fit into one call of at most {self._max_rows}")
        if len({row.lane for row in rows}) != 1:
            raise EngineError("a call needs rows that share a lane")
        if not all(row in self._rows and row.calls_left for row in rows):
            raise EngineError("a call needs rows that are open and not finished")

    def remove(self, row: R) -> None:
        """Give a row's place back; raises EngineError if it is not open."""
        if row not in self._rows:
            raise EngineError("the row is not open")
        self._rows.remove(row)
