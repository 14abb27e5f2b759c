"""How long the rows in front will take, from what past calls took."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from statistics import mean

WEIGHT = 0.1


@dataclass(slots=True)
class _Averages:
    """Exponential moving averages of one model; None until something was measured."""

    row_call_seconds: float | None = None
    calls_per_row: float | None = None


class CostModel:
    """Measured seconds that a model needs to advance one row by one call, its share of the batch.

    Batches are full when a queue is long, so the average of seconds by row already holds what batching saves.
    """

    def __init__(self) -> None:
        """Start without measurements."""
        self._averages: dict[Hashable, _Averages] = {}

    def expect(self, model: Hashable, costs: Mapping[str, Mapping[int, float]]) -> None:
        """Begin with what an engine measured (`Engine.costs`): its kinds of calls alike, each well filled."""
        best = [min(cost / rows for rows, cost in calls.items()) for calls in costs.values() if calls]
        if best:
            self._averages.setdefault(model, _Averages()).row_call_seconds = mean(best)

    def observe_row(self, model: Hashable, calls: int) -> None:
        """Record how many engine calls an opened row needs."""
        averages = self._averages.setdefault(model, _Averages())
        averages.calls_per_row = _blend(averages.calls_per_row, calls)

    def observe_call(self, model: Hashable, rows: int, seconds: float) -> None:
        """Record the seconds of one engine call of `rows` rows."""
        averages = self._averages.setdefault(model, _Averages())
        averages.row_call_seconds = _blend(averages.row_call_seconds, seconds / rows)

    def seconds(self, model: Hashable, *, active_calls: int, waiting_rows: int) -> float:
        """Estimate the engine seconds that rows in front need; 0 before the first measurement.

        Args:
            model: whose rows they are.
            active_calls: calls left of all active rows together.
            waiting_rows: rows not opened yet; each is taken to need as many calls as rows did lately.
        """
        averages = self._averages.get(model, _Averages())
        calls = active_calls + waiting_rows * (averages.calls_per_row or 0.0)
        return calls * (averages.row_call_seconds or 0.0)


def _blend(average: float | None, value: float) -> float:
    return value if average is None else average + WEIGHT * (value - average)
