"""Rows of a model whose calls differ along the path, as VAR's scales do."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from engines.base import Leg
from server.scheduling.cost import CostModel
from server.scheduling.policy import POLICIES, PolicyName
from server.scheduling.priority import Priority
from server.scheduling.scheduler import Scheduler

CHEAP_FIRST = (0.1, 0.2, 4.0, 8.0)
"""Seconds of a call at each scale, whatever its rows."""


@dataclass(eq=False)
class Row:
    name: str
    scales: tuple[float, ...] = CHEAP_FIRST
    done: int = 0
    arrival: float = 0.0
    deadline: float = float("inf")
    model: str = "var"
    priority: Priority = Priority.INTERACTIVE
    cancelled: bool = False
    promised: bool = False
    seen: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def path(self) -> list[Leg]:
        return [Leg(f"scale{scale}", 1) for scale in range(len(self.scales))]

    @property
    def calls_left(self) -> int:
        return len(self.scales) - self.done

    @property
    def lane(self) -> str:
        return f"scale{self.done}"


def scheduler(
    policy: PolicyName, linear: bool = False, scales: tuple[float, ...] = CHEAP_FIRST
) -> Scheduler[Row]:
    cost = CostModel()
    cost.expect(
        "var",
        {
            f"scale{scale}": {rows: seconds * (rows if linear else 1) for rows in (1, 2, 4, 8)}
            for scale, seconds in enumerate(scales)
        },
    )
    made: Scheduler[Row] = Scheduler(64, POLICIES[policy], cost)
    made.add_model("var", capacity=8, max_rows=8)
    return made


def turn(made: Scheduler[Row], now: float = 0.0) -> list[str]:
    made.admit()
    batch = made.batch(now)
    assert batch is not None
    rows = batch.rows
    for row in rows:
        row.done += 1
        if not row.calls_left:
            made.retire(row)
    return [row.name for row in rows]


@pytest.mark.parametrize("policy", PolicyName)
def test_a_newcomer_runs_its_cheap_scales_alone_and_shares_the_dear_ones(policy: PolicyName) -> None:
    made = scheduler(policy)
    made.submit([Row("old")])
    assert [turn(made), turn(made)] == [["old"], ["old"]]
    made.submit([Row("new", arrival=1.0)])
    assert [turn(made) for _ in range(4)] == [["new"], ["new"], ["old", "new"], ["old", "new"]]
    assert not made.busy


@pytest.mark.parametrize(
    ("linear", "scales", "deadline"),
    [
        (True, CHEAP_FIRST, float("inf")),  # sharing saves nothing
        (False, (4.0, 4.0, 1.0, 1.0), float("inf")),  # catching up costs more than sharing saves
        (False, CHEAP_FIRST, 12.1),  # the one in front would be late
    ],
)
def test_nobody_waits_where_it_does_not_pay(linear: bool, scales: tuple[float, ...], deadline: float) -> None:
    made = scheduler(PolicyName.LATENCY, linear, scales)
    made.submit([Row("old", scales, deadline=deadline)])
    turn(made)
    turn(made)
    made.submit([Row("new", scales, arrival=1.0)])
    assert [turn(made), turn(made)] == [["old"], ["old"]]


def test_a_stream_of_newcomers_does_not_hold_a_row_up_for_ever() -> None:
    made = scheduler(PolicyName.THROUGHPUT)
    old = Row("old")
    made.submit([old])
    calls = 0
    while old.calls_left:
        made.submit([Row("new", arrival=float(calls))])
        turn(made)
        calls += 1
        assert calls < 40
