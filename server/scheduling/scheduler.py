"""Which rows go into the next engine call. It knows neither torch nor threads nor the time of day."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import chain, count
from typing import Generic

from server.scheduling import catch_up
from server.scheduling.batch import Batch
from server.scheduling.cost import CostModel
from server.scheduling.policy import Policy
from server.scheduling.priority import Priority
from server.scheduling.rows import Rows
from server.scheduling.schedulable import T, Turn, width_of

BATCH_SHARE = 1 / 16
"""Share of the calls that batch rows get while interactive rows leave them none."""

FREE_RIDE = 1.1
"""How much longer a call of interactive rows may take because batch rows take part in it."""


class Drop(StrEnum):
    """Why a row was dropped before it was finished."""

    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Scheduler(Generic[T]):
    """Step-level continuous batching with a bounded queue.

    A row waits, becomes active when its model has a free place, takes part in engine calls and retires.
    Before every call the owner asks, in this order: `drop`, `admit`, `batch`. Rows are served in the order
    of the policy's ranks, interactive ones first. A call is the lane of the first active row, filled with
    rows of that lane in their order as far as the costs say that it pays. Batch rows fill what is free
    anyway, and have every so many calls to themselves.
    """

    def __init__(self, max_waiting: int, policy: Policy, cost: CostModel) -> None:
        """Bound the waiting rows of all models together by `max_waiting`."""
        self._max_waiting = max_waiting
        self._policy = policy
        self._cost = cost
        self._models: dict[Hashable, Rows[T]] = {}
        self._numbers = count()
        self._next_deadline = float("inf")
        self._cancelled = False
        self._owed_to_batch = 0.0
        self._last: Batch[T] | None = None

    def add_model(self, model: Hashable, *, capacity: int, max_rows: int) -> None:
        """Accept rows of a model with at most `capacity` active rows, `max_rows` of them in a call."""
        self._models[model] = Rows(capacity, max_rows)

    def remove_model(self, model: Hashable) -> None:
        """Accept no rows of a model any more. None of its rows waits or is active."""
        del self._models[model]

    @property
    def models(self) -> Mapping[Hashable, Rows[T]]:
        """The rows of each model, to look at."""
        return self._models

    def waiting(self, model: Hashable) -> int:
        """Return how many rows of a model wait for a place; none of a model that was not added."""
        return len(self._models[model].waiting) if model in self._models else 0

    def active(self, model: Hashable) -> Sequence[T]:
        """Return the rows of a model that hold a place, in their order; of an unknown model none."""
        return [row for _, row in self._models[model].active] if model in self._models else []

    @property
    def busy(self) -> bool:
        """Whether any row waits or is active."""
        return any(self._models.values())

    def __iter__(self) -> Iterator[tuple[Turn, T]]:
        """Iterate over all rows with their turns; those of a model: active ones, then waiting ones."""
        return chain.from_iterable(self._models.values())

    def has_room(self, rows: int) -> bool:
        """Return whether `rows` more rows may wait."""
        return sum(len(model.waiting) for model in self._models.values()) + rows <= self._max_waiting

    def turn_of(self, row: T) -> Turn:
        """Return the place in the order that a row gets if it is submitted now."""

        def seconds() -> float:
            return self._cost.row_seconds(row.model, row.path, row.calls_left, 1)

        rank = self._policy.rank(row.arrival, row.deadline, seconds)
        return Turn(row.priority is Priority.BATCH, rank, next(self._numbers))

    def submit(self, rows: Sequence[T]) -> None:
        """Let rows wait. The caller has asked `has_room`."""
        for row in rows:
            self._models[row.model].add(self.turn_of(row), row)
            self._next_deadline = min(self._next_deadline, row.deadline)

    def note_cancelled(self) -> None:
        """Tell that some row was cancelled; the next `drop` looks for it. Safe to call from any thread."""
        self._cancelled = True

    def drop(self, now: float) -> list[tuple[T, Drop]]:
        """Remove the rows, waiting or active, that are past their deadline or cancelled."""
        if now < self._next_deadline and not self._cancelled:
            return []
        self._cancelled = False
        dropped = [
            (row, Drop.EXPIRED if now >= row.deadline else Drop.CANCELLED)
            for _, row in self
            if now >= row.deadline or row.cancelled
        ]
        for row, _ in dropped:
            self.retire(row)
        self._next_deadline = min((row.deadline for _, row in self), default=float("inf"))
        return dropped

    def admit(self) -> list[T]:
        """Move waiting rows into free places, in their order; return those rows."""
        admitted = [row for model in self._models.values() if model.waiting for row in model.admit()]
        if admitted:
            self._last = None
        return admitted

    def batch(self, now: float) -> Batch[T] | None:
        """Return the rows of the next call, which share a model and a lane; None when none is active."""
        last = self._last
        if last is None or not last.stands or self._best(last, is_batch=False) < len(last.rows):
            last = self._choose(now)
        if last is not None:
            self._models[last.model].needed = None
        return last

    def _choose(self, now: float) -> Batch[T] | None:
        self._last = None
        models = [model for model in self._models.values() if model.active]
        if not models:
            return None
        first = min(models, key=lambda model: model.active[0][0])
        turn, head = first.active[0]
        if not turn.batch and (owed := self._owed(models)) is not None:
            first, turn, head = owed
        batch = self._fill(first, turn, head, now)
        if batch.rows[-1].priority is Priority.BATCH:
            self._owed_to_batch = 0.0
        elif len(batch.rows) in {first.max_rows, len(first.active)}:
            # Until a row comes or goes the next call is the same, unless batch rows wait to be owed one.
            self._last = None if any(model.active[-1][0].batch for model in models) else batch
        return batch

    def retire(self, row: T) -> None:
        """Give a row's place back."""
        self._last = None
        self._models[row.model].remove(row)

    def clear(self) -> list[T]:
        """Remove and return every row."""
        rows = [row for _, row in self]
        for model in self._models.values():
            model.clear()
        self._last = None
        return rows

    def _owed(self, models: Iterable[Rows[T]]) -> tuple[Rows[T], Turn, T] | None:
        """Return the first batch row if its turn has come although interactive rows are there."""
        entries = [
            (model, *next(entry for entry in model.active if entry[0].batch))
            for model in models
            if model.active[-1][0].batch
        ]
        if not entries:
            return None
        self._owed_to_batch += BATCH_SHARE
        return min(entries, key=lambda entry: entry[1]) if self._owed_to_batch >= 1 else None

    def _fill(self, model: Rows[T], turn: Turn, head: T, now: float) -> Batch[T]:
        """Return the rows of a call of the head's lane, or of those that catch up with it."""
        rows = self._mates(model, turn, head)
        if len(rows) < model.max_rows and len(rows) < len(model.active):
            peers = [row for other, row in model.active if other.batch == turn.batch]
            followers = catch_up.followers_of(rows, peers)[: model.max_rows - len(rows)]
            if catch_up.pays(rows, followers, cost=self._cost, policy=self._policy, now=now):
                rows = followers
        batch = Batch.of(rows)
        if (best := self._best(batch, is_batch=turn.batch)) < len(rows):
            batch = Batch.of(rows[:best])
        if not turn.batch and model.active[-1][0].batch and (riders := self._riders(model, batch)):
            batch = Batch.of([*batch.rows, *riders])
        return batch

    def _best(self, batch: Batch[T], *, is_batch: bool) -> int:
        """Return how many of the rows, from the first, one call should have; `is_batch`: of batch rows."""
        slack = 0.0 if is_batch or self._models[batch.model].waiting else self._policy.slack
        return self._cost.best_prefix(batch.model, batch.lane, batch.widths, slack=slack)

    @staticmethod
    def _mates(model: Rows[T], turn: Turn, head: T) -> list[T]:
        """Return the head and those who may share its call, as many as fit."""
        lane = head.lane
        rows = [head]
        for other, row in model.active:
            if len(rows) == model.max_rows:
                break
            if row is not head and other.batch == turn.batch and row.lane == lane:
                rows.append(row)
        return rows

    def _riders(self, model: Rows[T], batch: Batch[T]) -> list[T]:
        """Return the batch rows that may take part in a call of interactive rows."""
        lane, width = batch.lane, batch.width
        costs = self._cost.lane(batch.model, lane)
        limit = FREE_RIDE * costs.seconds(width)
        candidates = [row for turn, row in model.active if turn.batch and row.lane == lane]
        riders: list[T] = []
        for row in candidates[: model.max_rows - len(batch.rows)]:
            width += width_of(row.path, lane)
            if self._policy.slack and costs.seconds(width) > limit:
                break
            riders.append(row)
        return riders
