from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import Leg
from server.scheduling.cost import CostModel
from server.scheduling.policy import FAIRNESS_S, POLICIES, PolicyName
from server.scheduling.priority import Priority
from server.scheduling.scheduler import BATCH_SHARE, Drop, Scheduler

LIMITS = {"a": (3, 2), "b": (5, 5)}  # capacity, max_rows
MAX_WAITING = 6


clock = count()


@dataclass(eq=False)
class Row:
    model: str = "a"
    lane: str = "x"
    calls: int = 1
    deadline: float = float("inf")
    cancelled: bool = False
    priority: Priority = Priority.INTERACTIVE
    promised: bool = False
    arrival: float = field(default_factory=lambda: float(next(clock)) * 1e-9)
    history: list[str] = field(default_factory=list)

    @property
    def path(self) -> list[Leg]:
        return [Leg(self.lane, self.calls)]

    @property
    def calls_left(self) -> int:
        return self.calls


def scheduler(
    limits: dict[str, tuple[int, int]] | None = None,
    policy: PolicyName = PolicyName.THROUGHPUT,
    max_waiting: int = MAX_WAITING,
) -> Scheduler[Row]:
    made: Scheduler[Row] = Scheduler(max_waiting, POLICIES[policy], CostModel())
    for name, (capacity, max_rows) in (limits or LIMITS).items():
        made.add_model(name, capacity=capacity, max_rows=max_rows)
    return made


def turn(made: Scheduler[Row], now: float = 0.0) -> list[Row]:
    """One call, as the engine thread makes it."""
    for row, reason in made.drop(now):
        row.history.append(reason)
    for row in made.admit():
        row.history.append("admitted")
    batch = made.batch(now)
    rows = list(batch.rows) if batch else []
    for row in rows:
        row.calls -= 1
        if row.calls == 0:
            made.retire(row)
            row.history.append("finished")
    return rows


rows = st.builds(
    Row,
    model=st.sampled_from(list(LIMITS)),
    lane=st.sampled_from("xyz"),
    calls=st.integers(1, 4),
    deadline=st.one_of(st.just(float("inf")), st.floats(0, 30)),
    priority=st.sampled_from(Priority),
    history=st.builds(list),
)
events = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(rows, min_size=1, max_size=4)),
        st.tuples(st.just("cancel"), st.integers(0, 100)),
        st.tuples(st.just("turn"), st.just(None)),
    ),
    max_size=40,
)
policies = st.sampled_from(PolicyName)


@settings(max_examples=100, deadline=None)
@given(policies, events)
def test_every_row_ends_exactly_once_and_no_limit_is_broken(
    policy: PolicyName, plan: list[tuple[str, object]]
) -> None:
    made, accepted, now = scheduler(policy=policy), [], 0.0

    def checked_turn() -> None:
        batch = turn(made, now)
        assert len({(row.model, row.lane) for row in batch}) <= 1
        assert len({id(row) for row in batch}) == len(batch)
        for name, (capacity, max_rows) in LIMITS.items():
            assert len(made.active(name)) <= capacity
            assert sum(row.model == name for row in batch) <= max_rows
        assert all(row.deadline > now and not row.cancelled for row in batch)

    for kind, argument in plan:
        now += 1.0
        if kind == "submit":
            assert isinstance(argument, Sequence)
            room = sum(made.waiting(name) for name in LIMITS) + len(argument) <= MAX_WAITING
            assert made.has_room(len(argument)) == room
            if room:
                made.submit(argument)
                accepted += argument
        elif kind == "cancel" and accepted:
            assert isinstance(argument, int)
            accepted[argument % len(accepted)].cancelled = True
            made.note_cancelled()
        else:
            checked_turn()
    for _ in range(sum(row.calls for row in accepted) + 1):
        now += 1.0
        checked_turn()
    assert not made.busy
    for row in accepted:
        assert row.history in (["admitted", "finished"], ["admitted", row.history[-1]], [row.history[-1]])
        assert row.history[-1] in ("finished", Drop.CANCELLED, Drop.EXPIRED)
        assert (row.history[-1] == "finished") == (row.calls == 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xy"), st.integers(1, 4)), min_size=1, max_size=6))
def test_rows_start_in_order_of_arrival_and_within_a_lane_the_older_never_lags(
    plan: list[tuple[str, int]],
) -> None:
    made = scheduler({"a": (3, 2)})
    submitted = [Row(lane=lane, calls=calls) for lane, calls in plan]
    made.submit(submitted)
    started: list[Row] = []
    while made.busy:
        done = {id(row): row.calls for row in submitted}
        batch = turn(made)
        started += [row for row in batch if not any(row is other for other in started)]
        older_same_lane = [row for row in submitted if row.lane == batch[0].lane and done[id(row)] > 0]
        assert all(row is older for row, older in zip(batch, older_same_lane, strict=False))
    for lane in "xy":
        expected = [row for row in submitted if row.lane == lane]
        assert all(
            row is other for row, other in zip(expected, [r for r in started if r.lane == lane], strict=True)
        )


@settings(max_examples=100, deadline=None)
@given(policies, st.lists(st.sampled_from("wxyz"), min_size=1, max_size=5), st.integers(1, 5))
def test_a_row_moves_at_the_latest_when_all_older_ones_are_done(
    policy: PolicyName, lanes: list[str], calls: int
) -> None:
    """However many rows of another lane keep coming, an odd one out is not starved."""
    made = scheduler({"a": (6, 3)}, policy)
    older = [Row(lane=lane, calls=calls) for lane in lanes]
    victim = Row(lane="odd", calls=calls)
    made.submit([*older, victim])
    for _ in range(calls * (len(older) + 1)):
        if made.has_room(1):
            made.submit([Row(lane="w", calls=calls)])
        turn(made)
    assert victim.calls == 0


def test_a_newcomer_joins_at_the_next_call() -> None:
    made = scheduler()
    first, second = Row(calls=5), Row(calls=5)
    made.submit([first])
    assert turn(made) == [first]
    made.submit([second])
    assert turn(made) == [first, second]


def test_the_oldest_row_chooses_the_model_and_the_lane() -> None:
    made = scheduler()
    rows = [Row("b", lane="y"), Row("a"), Row("b", lane="z"), Row("b", lane="y")]
    made.submit(rows)
    assert [turn(made) for _ in range(3)] == [[rows[0], rows[3]], [rows[1]], [rows[2]]]


def test_a_full_model_does_not_hold_up_another() -> None:
    made = scheduler()
    made.submit([*(Row("a", calls=9) for _ in range(4)), Row("b", calls=9)])
    turn(made)
    assert (len(made.active("a")), made.waiting("a"), len(made.active("b"))) == (3, 1, 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Row(cancelled=True), Drop.CANCELLED),
        (Row(deadline=5.0), Drop.EXPIRED),
        (Row(deadline=5.0, cancelled=True), Drop.EXPIRED),
    ],
)
@pytest.mark.parametrize("active", [True, False])
def test_a_row_that_nobody_wants_leaves_its_place(row: Row, reason: Drop, active: bool) -> None:
    made = scheduler({"a": (1, 1)})
    other = Row(calls=3)
    row = dataclasses.replace(row, history=[], arrival=other.arrival)
    made.submit([row, other] if active else [other, row])
    made.admit()
    made.note_cancelled()
    assert made.drop(5.0) == [(row, reason)]
    assert made.admit() == ([other] if active else [])
    assert turn(made, 5.0) == [other]


@pytest.mark.parametrize(
    ("policy", "order"), [("throughput", [0, 1, 2]), ("latency", [2, 0, 1]), ("deadline", [1, 2, 0])]
)
def test_policies_differ_in_whom_they_serve_first(policy: PolicyName, order: list[int]) -> None:
    made = scheduler({"a": (1, 1)}, policy)
    made._cost.expect("a", {"x": {1: 1.0}})  # what an engine measured
    rows = [
        Row(calls=9, arrival=0.0, deadline=50.0),
        Row(calls=9, arrival=1.0, deadline=2.0),
        Row(calls=1, arrival=2.0, deadline=3.0),
    ]
    made.submit(rows)
    served = [turn(made)[0] for _ in range(19)]
    assert [rows.index(row) for row in dict.fromkeys(served)] == order


def test_under_deadline_no_row_is_overtaken_for_ever() -> None:
    made = scheduler({"a": (1, 1)}, PolicyName.DEADLINE, max_waiting=10**6)
    patient = Row(calls=1, arrival=0.0)
    made.submit([patient])
    for now in range(100):
        made.submit(
            [Row(arrival=float(now), deadline=now + 2.0), Row(arrival=float(now), deadline=now + 2.0)]
        )
        if patient in turn(made, float(now)):
            break
    assert FAIRNESS_S - 2 <= now <= FAIRNESS_S


def test_batch_rows_take_what_is_left_and_are_not_starved() -> None:
    made = scheduler({"a": (4, 1)}, max_waiting=1000)
    batch = Row(calls=10**6, priority=Priority.BATCH)
    made.submit([batch])
    assert turn(made) == [batch]
    calls = 640
    served = []
    for _ in range(calls):
        made.submit([Row()])
        served += turn(made)
    assert served.count(batch) == calls * BATCH_SHARE


def test_batch_rows_leave_places_to_interactive_ones() -> None:
    made = scheduler({"a": (8, 2)}, max_waiting=100)
    made.submit([Row(calls=100, priority=Priority.BATCH) for _ in range(20)])
    turn(made)
    late = Row(calls=100)
    made.submit([late])
    assert late in turn(made)
    assert len(made.active("a")) == 5


@pytest.mark.parametrize(("seconds", "shared"), [({2: 1.0}, True), ({1: 0.5, 2: 1.0}, False)])
def test_batch_rows_share_the_calls_of_others_where_that_costs_these_nothing(
    seconds: dict[int, float], shared: bool
) -> None:
    made = scheduler({"a": (4, 2)}, PolicyName.LATENCY)
    made._cost.expect("a", {"x": seconds})
    interactive, batch = Row(calls=9), Row(calls=9, priority=Priority.BATCH)
    made.submit([batch, interactive])
    assert turn(made) == ([interactive, batch] if shared else [interactive])


@pytest.mark.parametrize(
    ("seconds", "rows"),
    [
        ({size: 1.0 for size in range(1, 9)}, 8),  # a full call costs what one row costs
        ({size: float(size) for size in range(1, 9)}, 4),  # sharing saves nothing: half of them first
        ({1: 1.0, 4: 2.0, 8: 4.0}, 4),
    ],
)
def test_calls_are_as_large_as_pays(seconds: dict[int, float], rows: int) -> None:
    made = scheduler({"a": (8, 8)}, PolicyName.LATENCY, max_waiting=8)
    made._cost.expect("a", {"x": seconds})
    made.submit([Row(calls=9) for _ in range(8)])
    assert len(turn(made)) == rows
