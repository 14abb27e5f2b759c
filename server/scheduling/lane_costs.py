"""How long calls of one kind take by how many rows wide they are."""

from __future__ import annotations

from collections.abc import Mapping

WEIGHT = 0.1
"""Of a new measurement against what was known before."""

MOST = 2.0
"""A measurement counts as at most so many times what is known: a call may have been held up."""

FORGOTTEN_AFTER = 512
"""Calls of other widths after which a width's own measurements are taken for out of date."""

REFRESHED_EVERY = 8
"""Calls of widths that are known after which estimates are made anew."""


class LaneCosts:
    """Seconds of a call by its width: measured lately, else as the engine measured it, else from neighbours.

    An engine divides a call into calls of the sizes that it measured and pads these; what it told of them
    gives the cost of every width in between. Where it told nothing, a wider call than any that was seen is
    taken to cost as much as the widest: so it is tried, and known from then on.

    Attributes:
        answers: what was found out from these costs; forgotten when they change.
    """

    def __init__(self, measured: Mapping[int, float]) -> None:
        """Begin with what the engine measured: seconds by size."""
        self._measured = dict(measured)
        self._plans: list[tuple[float, int]] = [(0.0, 0)]
        self._seen: dict[int, tuple[float, int, int]] = {}
        self._drift = 1.0
        self._calls = 0
        self._least = min(measured.values(), default=float("inf"))
        self._table: dict[int, float] = {}
        self.answers: dict[tuple[tuple[int, ...], float], int] = {}

    @property
    def least(self) -> float:
        """The seconds of the quickest call of all; 0 before the first."""
        return self._least if self._least < float("inf") else 0.0

    def observe(self, width: int, seconds: float) -> None:
        """Learn from one call."""
        planned = self._plan(width)[0]
        average, times, last = self._seen.get(width, (0.0, 0, 0))
        if self._calls - last >= FORGOTTEN_AFTER or not times:
            # One call alone must not make a width look bad: it would not be tried again for long.
            average, times = planned * self._drift or seconds, 0
        average += (min(seconds, MOST * average) - average) * WEIGHT
        self._calls += 1
        self._seen[width] = (average, times + 1, self._calls)
        self._least = min(self._least, seconds)
        if planned:
            self._drift += (min(seconds / planned, MOST * self._drift) - self._drift) * WEIGHT
        if times < REFRESHED_EVERY or self._calls % REFRESHED_EVERY == 0:
            self._table.clear()
            self.answers.clear()

    def seconds(self, width: int) -> float:
        """Return the expected seconds of a call; 0 if nothing was measured yet."""
        if not width:
            return 0.0
        known = self._table.get(width)
        if known is None:
            known = self._table[width] = self._estimate(width)
        return known

    def slots(self, width: int) -> int:
        """Return how many rows the engine computes for a call, padding included, as far as it said."""
        return self._plan(width)[1] if self._measured else width

    def _estimate(self, width: int) -> float:
        fresh = {
            seen: average
            for seen, (average, _, last) in self._seen.items()
            if self._calls - last < FORGOTTEN_AFTER
        }
        if width in fresh:
            return fresh[width]
        if planned := self._plan(width)[0]:
            return planned * self._drift
        wider = [seen for seen in fresh if seen > width]
        nearest = min(wider) if wider else max(fresh, default=0)
        return fresh.get(nearest, 0.0)

    def _plan(self, width: int) -> tuple[float, int]:
        """Return seconds and computed rows of the cheapest division of `width` rows among measured sizes."""
        while self._measured and len(self._plans) <= width:
            rows = len(self._plans)
            self._plans.append(
                min(
                    (
                        seconds + self._plans[max(rows - size, 0)][0],
                        size + self._plans[max(rows - size, 0)][1],
                    )
                    for size, seconds in self._measured.items()
                )
            )
        return self._plans[width] if self._measured else (0.0, width)
