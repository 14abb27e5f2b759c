"""When rows will be done: the order of the policy played forward with the costs of calls."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from operator import itemgetter
from typing import Generic

from server.scheduling.cost import CostModel
from server.scheduling.rows import Rows
from server.scheduling.schedulable import T, Turn
from server.scheduling.scheduler import BATCH_SHARE, Scheduler

PLAYED_ROWS = 32
"""With more rows in front a new one waits for about all their compute, however it falls on lines."""

_TURN = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What accepting rows would lead to; times are seconds from now.

    Attributes:
        starts: when the last of the new rows takes part in its first call.
        ends: when the last of them is done.
        own: engine seconds of the new rows.
        pending: engine seconds of all rows that are there already.
        breaks: whether a promise to another row would be broken that is kept without them.
    """

    starts: float
    ends: float
    own: float
    pending: float
    breaks: bool


class Forecaster(Generic[T]):
    """Plays the schedule forward.

    The engine is taken for as many lines as a call has rows: each serves one row after the other, in the
    order of the policy, at the pace of shared calls. Rows in different lanes take turns, which slows all of
    them while calls are not full. Behind a long queue where no promise depends on it nothing is played: the
    time to look ahead does not grow with the queue.
    """

    def __init__(self, scheduler: Scheduler[T], cost: CostModel) -> None:
        """Look at the rows of `scheduler` and the costs of `cost`."""
        self._scheduler = scheduler
        self._cost = cost

    def pending(self) -> float:
        """Return the engine seconds that all rows still need, calls well filled."""
        return sum(self._pending())

    def outlook(self, rows: Sequence[T], now: float, free_at: float) -> Outlook:
        """Look ahead.

        Args:
            rows: new ones of one request.
            now: seconds on the rows' clock.
            free_at: when the engine call in progress will be over.
        """
        new = [(self._scheduler.turn_of(row), row) for row in rows]
        if not rows[0].promised and self._is_last(new[0][0]):
            return self._behind(new, now, free_at)
        return self._played(new, now, free_at)

    def _is_last(self, turn: Turn) -> bool:
        """Return whether many rows are there and all, but batch rows where it is none, come before a turn."""
        models = self._scheduler.models.values()
        if sum(len(model.active) + len(model.waiting) for model in models) <= PLAYED_ROWS:
            return False
        turns = (model.last_turn(batch=turn.batch) for model in models)
        return all(last is None or last < turn for last in turns)

    def _behind(self, new: Sequence[tuple[Turn, T]], now: float, free_at: float) -> Outlook:
        """Look ahead from the end of a long queue."""
        rows = [row for _, row in new]
        model = self._scheduler.models[rows[0].model]
        lines = self._lines(rows[0], model.max_rows)
        next_rows = (model.active or model.waiting or new)[: 2 * lines]
        pace = _lanes_in_turn([row for _, row in next_rows], lines)
        interactive, batch = self._pending()
        ahead = interactive + batch
        if batch and not new[0][0].batch:
            ahead = interactive
            pace /= 1 - BATCH_SHARE
        shares = self._cost.shares(rows, lines)
        alone = lines * shares[-1]
        starts = max(now, free_at) - now + pace * (ahead + max(0.0, sum(shares) - alone))
        return Outlook(
            starts=starts,
            ends=starts + pace * alone,
            own=sum(shares),
            pending=interactive + batch,
            breaks=False,
        )

    def _played(self, new: Sequence[tuple[Turn, T]], now: float, free_at: float) -> Outlook:
        """Look ahead by playing all rows."""
        entries = sorted(self._scheduler, key=_TURN)
        first, behind_all = new[0][1], new[0][0].batch
        crowd = sum(turn.batch <= behind_all for turn, _ in entries)
        most = min(self._scheduler.models[first.model].max_rows, crowd + len(new))
        lines = self._lines(first, most)
        work = self._work(entries, lines)
        queue = sorted([*work, *self._work(new, lines)], key=_TURN)
        pace = lines * _lanes_in_turn([row for _, row, _ in queue[: 2 * lines]], lines)
        if entries and entries[-1][0].batch and not behind_all:
            pace /= 1 - BATCH_SHARE
        start = max(now, free_at) - now
        own = {turn.number for turn, _ in new}
        ends, starts, breaks = 0.0, 0.0, False
        free = [0.0] * lines
        heapify(free)
        for turn, row, seconds in queue:
            mine = turn.number in own
            begins = max(free[0], start) if mine else free[0]
            done = begins + seconds * pace
            heapreplace(free, done)
            if mine:
                starts, ends = max(starts, begins), max(ends, done)
            elif row.promised and ends and now + done > row.deadline:
                breaks = True
        breaks = breaks and self._kept_without(work, now, lines, pace)
        pending = sum(seconds for _, _, seconds in work)
        total = sum(seconds for _, _, seconds in queue)
        return Outlook(starts=starts, ends=ends, own=total - pending, pending=pending, breaks=breaks)

    def _kept_without(
        self, work: Sequence[tuple[Turn, T, float]], now: float, lines: int, pace: float
    ) -> bool:
        """Return whether every promise is kept as things are."""
        free = [0.0] * lines
        for _, row, seconds in work:
            done = free[0] + seconds * pace
            heapreplace(free, done)
            if row.promised and now + done > row.deadline:
                return False
        return True

    def _pending(self) -> tuple[float, float]:
        """Return the engine seconds of interactive and of batch rows; waiting ones are not looked at."""
        seconds = [0.0, 0.0]
        for model, rows in self._scheduler.models.items():
            if not rows:
                continue
            lines = self._lines((rows.active or rows.waiting)[0][1], rows.max_rows)
            if rows.needed is None:  # Between two calls many may ask.
                rows.needed = self._needed(rows, lines)
            for is_batch in (False, True):
                seconds[is_batch] += rows.needed[is_batch]
            for (is_batch, lane, width), calls in rows.queued.items():
                seconds[is_batch] += calls * self._cost.share(model, lane, width, lines)
        return seconds[False], seconds[True]

    def _needed(self, rows: Rows[T], lines: int) -> tuple[float, float]:
        seconds = [0.0, 0.0]
        shares = self._cost.shares([row for _, row in rows.active], lines)
        for (turn, _), share in zip(rows.active, shares, strict=True):
            seconds[turn.batch] += share
        return seconds[False], seconds[True]

    def _lines(self, row: T, most: int) -> int:
        return self._cost.best_rows(row.model, row.path[0], most)

    def _work(self, entries: Sequence[tuple[Turn, T]], lines: int) -> list[tuple[Turn, T, float]]:
        shares = self._cost.shares([row for _, row in entries], lines)
        return [(turn, row, seconds) for (turn, row), seconds in zip(entries, shares, strict=True)]


def _lanes_in_turn(rows: Sequence[T], lines: int) -> float:
    """Return how many calls it takes to advance all these rows, against full calls."""
    counts: dict[tuple[Hashable, str], int] = {}
    for row in rows:
        key = (row.model, row.lane)
        counts[key] = counts.get(key, 0) + 1
    needed = sum(-(-count // lines) for count in counts.values())
    return max(1.0, needed / -(-len(rows) // lines))
