"""Batch sizes between which a call's results do not change by a single bit."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from engines.errors import EngineError

TIMINGS = 2
"""Calls of a size that are timed: the first after others is often slower."""


@dataclass(frozen=True)
class Buckets:
    """The batch sizes that calls run at, and how rows are divided among them.

    A matrix product may sum in another order at another batch size, which changes the last bits of a row.
    Only sizes that agree on every bit are used, and rows are padded to them, so that a row's result does
    not depend on how many others share its call. Since they agree, how rows are divided among them may depend
    on a clock.

    Attributes:
        sizes: the batch sizes in use, ascending.
        call_cost: what a call costs beside its rows, in rows: high where weights have to be read for little
            work, 0 where the arithmetic is everything.
        seconds: of a call at each size, as `timed` measured them; None: calls cost what `call_cost` says.
    """

    sizes: tuple[int, ...]
    call_cost: float
    seconds: tuple[float, ...] | None = None

    @classmethod
    def find(cls, run: Callable[[int], Tensor], candidates: Sequence[int], call_cost: float) -> Buckets:
        """Run every candidate size once and keep the cheapest set of sizes that agree bit for bit.

        In the worst case that set is one size, and every call has it. Which set is kept depends on the bits
        and on `call_cost`, never on a clock: the same machine finds the same set again.

        Args:
            run: makes one call of that many rows, all of them alike, and returns its results row by row,
                (rows, ...). Every call must be given the same row.
            candidates: batch sizes to try.
            call_cost: see the class.

        Raises:
            EngineError: at every size a row's result depends on its position.
        """
        if set(candidates) == {1}:
            return cls((1,), call_cost)
        agreeing: list[tuple[Tensor, list[int]]] = []
        for size in sorted(set(candidates)):
            results = run(size)
            if not all(torch.equal(results[0], other) for other in results[1:]):
                continue
            for result, sizes in agreeing:
                if torch.equal(result, results[0]):
                    sizes.append(size)
                    break
            else:
                agreeing.append((results[0].clone(), [size]))
        if not agreeing:
            raise EngineError(f"at batch sizes {sorted(candidates)} a row's result depends on its position")
        options = [cls(tuple(sizes), call_cost) for _, sizes in agreeing]
        return min(options, key=lambda option: option.mean_cost(max(candidates)))

    def timed(self, run: Callable[[int], object], clock: Callable[[], float] = time.perf_counter) -> Buckets:
        """Return these sizes with their calls' seconds, the least of `TIMINGS`; `run` makes one call.

        No call counts as dearer than one of more rows: if it was measured so, something else ran meanwhile.
        """

        def measure(size: int) -> float:
            started = clock()
            run(size)
            return clock() - started

        measured = [min(measure(size) for _ in range(TIMINGS)) for size in self.sizes]
        seconds = tuple(min(measured[index:]) for index in range(len(measured)))
        return dataclasses.replace(self, seconds=seconds)

    @property
    def seconds_by_size(self) -> dict[int, float]:
        """The seconds of a call at each size; empty before `timed`."""
        return dict(zip(self.sizes, self.seconds or (), strict=False))

    def calls(self, rows: int) -> Iterator[tuple[int, list[int]]]:
        """Divide rows 0 to `rows` - 1 among the cheapest calls.

        Yields:
            For each call the number of rows that count, and the rows to give it: first those that count, then
            the last of them repeated up to the call's size.
        """
        start = 0
        for size in self._plan(rows)[1]:
            own = list(range(start, min(start + size, rows)))
            yield len(own), own + list(repeat(own[-1], size - len(own)))
            start += size

    def mean_cost(self, most: int) -> float:
        """Return the cost of a row, in rows or seconds, averaged over 1 to `most` rows at once."""
        return sum(self._plan(rows)[0] / rows for rows in range(1, most + 1)) / most

    def _plan(self, rows: int) -> tuple[float, tuple[int, ...]]:
        """Return the lowest cost of `rows` rows and its calls' sizes; of equals the fewest calls and rows."""
        costs = self.seconds or tuple(size + self.call_cost for size in self.sizes)
        plans: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for held in range(1, rows + 1):
            options = [
                (rest + cost, (size, *sizes))
                for size, cost in zip(self.sizes, costs, strict=True)
                for rest, sizes in [plans[max(held - size, 0)]]
            ]
            plans.append(min(options, key=lambda plan: (plan[0], len(plan[1]), sum(plan[1]))))
        return plans[rows]


def powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4 and so on up to `most`."""
    return [2**i for i in range(most.bit_length())]
