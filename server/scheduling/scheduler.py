"""Which rows go into the next engine call. It knows neither torch nor threads nor the time of day."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, count
from typing import Generic, Protocol, TypeVar


class Schedulable(Protocol):
    """What the scheduler sees of a row.

    Attributes:
        model: what makes it; rows of two models never share a call.
        deadline: seconds on the caller's clock after which nobody wants it.
        cancelled: nobody wants it any more.
        lane: active rows of one model with equal lanes may share a call.
    """

    @property
    def model(self) -> Hashable: ...  # noqa: D102

    @property
    def deadline(self) -> float: ...  # noqa: D102

    @property
    def cancelled(self) -> bool: ...  # noqa: D102

    @property
    def lane(self) -> Hashable: ...  # noqa: D102


T = TypeVar("T", bound=Schedulable)


class Drop(StrEnum):
    """Why a row was dropped before it was finished."""

    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class _Queue(Generic[T]):
    """Rows of one model, each with its number in order of arrival."""

    capacity: int
    max_rows: int
    waiting: deque[tuple[int, T]] = field(default_factory=deque)
    active: list[tuple[int, T]] = field(default_factory=list)


class Scheduler(Generic[T]):
    """Step-level continuous batching with a bounded queue.

    A row waits, becomes active when its model has a free place, takes part in engine calls and retires.
    Before every call the owner asks, in this order: `drop`, `admit`, `batch`. Rows are admitted in order of
    arrival. The batch is the lane of the oldest active row, filled with rows of the same lane in order of
    arrival; so the oldest row moves at every call, every row becomes the oldest one in turn, and nothing
    starves, while rows that arrive later join at the next call.
    """

    def __init__(self, max_waiting: int) -> None:
        """Bound the waiting rows of all models together by `max_waiting`."""
        self._max_waiting = max_waiting
        self._queues: dict[Hashable, _Queue[T]] = {}
        self._numbers = count()

    def add_model(self, model: Hashable, *, capacity: int, max_rows: int) -> None:
        """Accept rows of a model with at most `capacity` active rows, `max_rows` of them in a call."""
        self._queues[model] = _Queue(capacity=capacity, max_rows=max_rows)

    def remove_model(self, model: Hashable) -> None:
        """Accept no rows of a model any more. None of its rows waits or is active."""
        del self._queues[model]

    def waiting(self, model: Hashable) -> int:
        """Return how many rows of a model wait for a place; none of a model that was not added."""
        return len(self._queues[model].waiting) if model in self._queues else 0

    def active(self, model: Hashable) -> Sequence[T]:
        """Return the rows of a model that hold a place, oldest first; none of a model that was not added."""
        return [row for _, row in self._queues[model].active] if model in self._queues else []

    @property
    def busy(self) -> bool:
        """Whether any row waits or is active."""
        return any(queue.waiting or queue.active for queue in self._queues.values())

    def has_room(self, rows: int) -> bool:
        """Return whether `rows` more rows may wait."""
        return sum(len(queue.waiting) for queue in self._queues.values()) + rows <= self._max_waiting

    def submit(self, rows: Sequence[T]) -> None:
        """Append rows to the waiting queue. The caller has asked `has_room`."""
        for row in rows:
            self._queues[row.model].waiting.append((next(self._numbers), row))

    def drop(self, now: float) -> list[tuple[T, Drop]]:
        """Remove the rows, waiting or active, that are past their deadline or cancelled."""
        dropped: list[tuple[T, Drop]] = []
        for queue in self._queues.values():
            reasons = {
                number: reason
                for number, row in chain(queue.waiting, queue.active)
                if (reason := _reason_to_drop(row, now)) is not None
            }
            if not reasons:
                continue
            dropped += [(row, reasons[n]) for n, row in chain(queue.active, queue.waiting) if n in reasons]
            kept = [entry for entry in queue.waiting if entry[0] not in reasons]
            queue.waiting.clear()
            queue.waiting.extend(kept)
            queue.active[:] = [entry for entry in queue.active if entry[0] not in reasons]
        return dropped

    def admit(self) -> list[T]:
        """Move waiting rows into free places, first come, first served; return those rows."""
        return [row for queue in self._queues.values() for row in _fill(queue)]

    def batch(self) -> list[T]:
        """Return the rows of the next call, which share a model and a lane; empty when none is active."""
        queues = [queue for queue in self._queues.values() if queue.active]
        if not queues:
            return []
        oldest = min(queues, key=lambda queue: queue.active[0][0])
        lane = oldest.active[0][1].lane
        return [row for _, row in oldest.active if row.lane == lane][: oldest.max_rows]

    def retire(self, row: T) -> None:
        """Give an active row's place back."""
        active = self._queues[row.model].active
        active[:] = [entry for entry in active if entry[1] is not row]

    def clear(self) -> list[T]:
        """Remove and return every row."""
        rows = [row for queue in self._queues.values() for _, row in chain(queue.active, queue.waiting)]
        for queue in self._queues.values():
            queue.active.clear()
            queue.waiting.clear()
        return rows


def _reason_to_drop(row: Schedulable, now: float) -> Drop | None:
    if now >= row.deadline:
        return Drop.EXPIRED
    return Drop.CANCELLED if row.cancelled else None


def _fill(queue: _Queue[T]) -> Iterator[T]:
    while queue.waiting and len(queue.active) < queue.capacity:
        entry = queue.waiting.popleft()
        queue.active.append(entry)
        yield entry[1]
