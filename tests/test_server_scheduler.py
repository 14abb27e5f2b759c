from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.scheduling.scheduler import Drop, Scheduler

LIMITS = {"a": (3, 2), "b": (5, 5)}  # capacity, max_rows
MAX_WAITING = 6


@dataclass(eq=False)
class Row:
    model: str = "a"
    lane: int = 0
    calls: int = 1
    deadline: float = float("inf")
    cancelled: bool = False
    history: list[str] = field(default_factory=list)


def scheduler(limits: dict[str, tuple[int, int]] | None = None) -> Scheduler[Row]:
    made: Scheduler[Row] = Scheduler(MAX_WAITING)
    for name, (capacity, max_rows) in (limits or LIMITS).items():
        made.add_model(name, capacity=capacity, max_rows=max_rows)
    return made


def turn(made: Scheduler[Row], now: float = 0.0) -> list[Row]:
    """One call, as the engine thread makes it."""
    for row, reason in made.drop(now):
        row.history.append(reason)
    for row in made.admit():
        row.history.append("admitted")
    batch = made.batch()
    for row in batch:
        row.calls -= 1
        if row.calls == 0:
            made.retire(row)
            row.history.append("finished")
    return batch


rows = st.builds(
    Row,
    model=st.sampled_from(list(LIMITS)),
    lane=st.integers(0, 2),
    calls=st.integers(1, 4),
    deadline=st.one_of(st.just(float("inf")), st.floats(0, 30)),
)
events = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(rows, min_size=1, max_size=4)),
        st.tuples(st.just("cancel"), st.integers(0, 100)),
        st.tuples(st.just("turn"), st.just(None)),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(events)
def test_every_row_ends_exactly_once_and_no_limit_is_broken(plan: list[tuple[str, object]]) -> None:
    made, accepted, now = scheduler(), [], 0.0

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
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4)), min_size=1, max_size=6))
def test_rows_start_in_order_of_arrival_and_within_a_lane_the_older_never_lags(
    plan: list[tuple[int, int]],
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
    for lane in (0, 1):
        expected = [row for row in submitted if row.lane == lane]
        assert all(
            row is other for row, other in zip(expected, [r for r in started if r.lane == lane], strict=True)
        )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(1, 5))
def test_a_row_moves_at_the_latest_when_all_older_ones_are_done(lanes: list[int], calls: int) -> None:
    """However many rows of another lane keep coming, an odd one out is not starved."""
    made = scheduler({"a": (6, 3)})
    older = [Row(lane=lane, calls=calls) for lane in lanes]
    victim = Row(lane=99, calls=calls)
    made.submit([*older, victim])
    for _ in range(calls * (len(older) + 1)):
        if made.has_room(1):
            made.submit([Row(lane=0, calls=calls)])
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
    rows = [Row("b", lane=1), Row("a", lane=0), Row("b", lane=2), Row("b", lane=1)]
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
    made.submit([row, other] if active else [other, row])
    made.admit()
    assert made.drop(5.0) == [(row, reason)]
    assert made.admit() == ([other] if active else [])
    assert made.batch() == [other]
