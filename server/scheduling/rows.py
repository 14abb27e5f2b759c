"""The rows of one model, in their order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic

from server.scheduling.schedulable import T, Turn


class Rows(Generic[T]):
    """Rows sorted by their turn, with room for at most `capacity` active ones, `max_rows` of them in a call.

    Batch rows hold at most `batch_capacity` places, so that interactive rows find one where there is more
    room than one call needs.
    """

    def __init__(self, capacity: int, max_rows: int) -> None:
        """Start without rows."""
        self.capacity = capacity
        self.max_rows = min(max_rows, capacity)
        self.batch_capacity = max(self.max_rows, capacity // 2)
        self.waiting: list[tuple[Turn, T]] = []
        self.active: list[tuple[Turn, T]] = []
        self._turns: dict[T, Turn] = {}

    def add(self, turn: Turn, row: T) -> None:
        """Let a row wait."""
        self._turns[row] = turn
        insort(self.waiting, (turn, row), key=_turn_of)

    def admit(self) -> Iterator[T]:
        """Give free places to waiting rows in their order; yield those rows."""
        if len(self.active) >= self.capacity:
            return
        batch_rows = sum(turn.batch for turn, _ in self.active)
        while self.waiting and len(self.active) < self.capacity:
            turn, row = self.waiting[0]
            batch_rows += turn.batch
            if turn.batch and batch_rows > self.batch_capacity:
                return
            insort(self.active, self.waiting.pop(0), key=_turn_of)
            yield row

    def remove(self, row: T) -> None:
        """Take a row out, wherever it is; one that is not there is none's business."""
        turn = self._turns.pop(row, None)
        if turn is None:
            return
        for rows in (self.active, self.waiting):
            index = bisect_left(rows, turn, key=_turn_of)
            if index < len(rows) and rows[index][1] is row:
                del rows[index]
                return

    def __iter__(self) -> Iterator[tuple[Turn, T]]:
        """Iterate over active rows, then waiting ones."""
        yield from self.active
        yield from self.waiting

    def __bool__(self) -> bool:
        return bool(self._turns)

    def clear(self) -> None:
        """Take every row out."""
        self.waiting.clear()
        self.active.clear()
        self._turns.clear()


def _turn_of(entry: tuple[Turn, T]) -> Turn:
    return entry[0]
