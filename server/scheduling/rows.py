"""The rows of one model, in their order."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from typing import Generic

from server.scheduling.schedulable import T, Turn


class Rows(Generic[T]):
    """Rows sorted by their turn, with room for at most `capacity` active ones, `max_rows` of them in a call.

    Batch rows hold at most `batch_capacity` places, so that interactive rows find one where there is more
    room than one call needs.

    Attributes:
        waiting, active: rows with their turns, in their order.
        queued: engine calls that the waiting ones need, by whether they are batch rows, lane and width.
        needed: engine seconds that the active ones need, interactive and batch rows apart, once somebody has
            found out; forgotten when one comes, takes part in a call or goes.
    """

    def __init__(self, capacity: int, max_rows: int) -> None:
        """Start without rows."""
        self.capacity = capacity
        self.max_rows = min(max_rows, capacity)
        self.batch_capacity = max(self.max_rows, capacity // 2)
        self.waiting: list[tuple[Turn, T]] = []
        self.active: list[tuple[Turn, T]] = []
        self.queued: Counter[tuple[bool, str, int]] = Counter()
        self.needed: tuple[float, float] | None = None
        self._turns: dict[T, Turn] = {}

    def add(self, turn: Turn, row: T) -> None:
        """Let a row wait."""
        self._turns[row] = turn
        insort(self.waiting, (turn, row), key=_turn_of)
        self._count(turn, row, 1)

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
            self._count(turn, row, -1)
            self.needed = None
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
                if rows is self.waiting:
                    self._count(turn, row, -1)
                else:
                    self.needed = None
                return

    def last_turn(self, *, batch: bool) -> Turn | None:
        """Return the turn of the last row, or of the last that is no batch row; None if there is none."""
        turns = []
        for rows in (self.active, self.waiting):
            end = len(rows) if batch else bisect_left(rows, True, key=_is_batch)
            if end:
                turns.append(rows[end - 1][0])
        return max(turns, default=None)

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
        self.queued.clear()
        self.needed = None
        self._turns.clear()

    def _count(self, turn: Turn, row: T, sign: int) -> None:
        for leg in row.path:
            self.queued[turn.batch, leg.lane, leg.width] += sign * leg.calls


def _turn_of(entry: tuple[Turn, T]) -> Turn:
    return entry[0]


def _is_batch(entry: tuple[Turn, T]) -> bool:
    return entry[0].batch
