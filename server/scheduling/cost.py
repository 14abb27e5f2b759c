"""How long engine calls take, lane by lane and by their number of rows; how long a row still needs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import accumulate

from engines.base import Leg
from server.scheduling.lane_costs import LaneCosts
from server.scheduling.schedulable import Schedulable, legs_left


class CostModel:
    """Seconds of every kind of call of every model: first what engines measured, then what calls take.

    A width is the number of rows in a call, each counted as often as its leg says (`Leg.width`).
    """

    def __init__(self) -> None:
        """Start without measurements."""
        self._lanes: dict[tuple[Hashable, str], LaneCosts] = {}

    def expect(self, model: Hashable, costs: Mapping[str, Mapping[int, float]]) -> None:
        """Begin with what an engine measured (`Engine.costs`)."""
        for lane, seconds in costs.items():
            self._lanes[model, lane] = LaneCosts(seconds)

    def forget(self, model: Hashable) -> None:
        """Drop everything that is known of a model."""
        for key in [key for key in self._lanes if key[0] == model]:
            del self._lanes[key]

    def lane(self, model: Hashable, lane: str) -> LaneCosts:
        """Return what is known of one kind of call."""
        known = self._lanes.get((model, lane))
        if known is None:
            known = self._lanes[model, lane] = LaneCosts({})
        return known

    def best_rows(self, model: Hashable, leg: Leg, most: int, *, slack: float = 0.0) -> int:
        """Return how many rows, at most `most`, one call should have.

        Args:
            model: whose call.
            leg: the kind of call and the width of each row.
            most: rows that there are.
            slack: share of the best throughput that may be given up for a call that is done sooner.
        """
        return self.best_prefix(model, leg.lane, [leg.width] * most, slack=slack)

    def best_prefix(self, model: Hashable, lane: str, widths: Sequence[int], *, slack: float = 0.0) -> int:
        """Return how many of the rows of these widths, from the first, one call should have.

        Without slack: as many as give the most rows a second. With it: of the numbers that give nearly as
        many, that which makes the rows wait least, if the others go into the next call.
        """
        costs, asked = self.lane(model, lane), (tuple(widths), slack)
        best = costs.answers.get(asked)
        if best is None:
            best = costs.answers[asked] = _best_prefix(costs, widths, slack)
        return best

    def row_seconds(self, model: Hashable, path: Sequence[Leg], calls_left: int, rows: int) -> float:
        """Return the seconds until a row is done that shares each of its calls with `rows` - 1 others.

        Args:
            model: whose row.
            path: all its calls.
            calls_left: how many of them are still to be made.
            rows: rows in every call, this one among them.
        """
        return sum(
            calls * self.lane(model, leg.lane).seconds(rows * leg.width)
            for leg, calls in legs_left(path, calls_left)
        )

    def share(self, model: Hashable, lane: str, width: int, lines: int) -> float:
        """Return the engine seconds that a row of a width takes of a call of `lines` rows like it."""
        return self.lane(model, lane).seconds(lines * width) / lines

    def shares(self, rows: Iterable[Schedulable], lines: int) -> list[float]:
        """Return the engine seconds that each row still needs, as its share of calls of `lines` rows."""
        known: dict[tuple[Hashable, str, int], float] = {}
        shares = []
        for row in rows:
            seconds = 0.0
            for leg, calls in legs_left(row.path, row.calls_left):
                kind = (row.model, leg.lane, leg.width)
                each = known.get(kind)
                if each is None:
                    each = known[kind] = self.share(*kind, lines)
                seconds += each * calls
            shares.append(seconds)
        return shares

    def least_seconds(self, model: Hashable, path: Sequence[Leg]) -> float:
        """Return the seconds that a row with the engine to itself took when it was quickest; 0 if unknown."""
        return sum(leg.calls * self.lane(model, leg.lane).least for leg in path)


def _best_prefix(costs: LaneCosts, widths: Sequence[int], slack: float) -> int:
    upto = list(accumulate(widths))
    seconds = [costs.seconds(width) for width in upto]
    if not seconds or not all(seconds):
        return len(seconds)
    rates = [rows / each for rows, each in enumerate(seconds, start=1)]
    wanted = max(rates) * (1 - slack)
    options = [rows for rows, rate in enumerate(rates, start=1) if rate >= wanted]
    if not slack:
        return options[-1]

    def waited(rows: int) -> float:
        others = len(upto) - rows
        return len(upto) * seconds[rows - 1] + others * costs.seconds(upto[-1] - upto[rows - 1])

    return min(options, key=waited)
