"""A call with the rows of the one before is not chosen anew."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from test_server_scheduler import LIMITS, MAX_WAITING, Row, policies, turn

from server.scheduling.cost import CostModel
from server.scheduling.policy import POLICIES, PolicyName
from server.scheduling.priority import Priority
from server.scheduling.scheduler import Scheduler

arrivals = st.lists(
    st.tuples(
        st.sampled_from(list(LIMITS)), st.text("xy", min_size=1, max_size=5), st.sampled_from(Priority)
    ),
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(
    policies,
    st.lists(
        st.tuples(arrivals, st.integers(0, 8), st.lists(st.floats(0.5, 2.0), min_size=1, max_size=8)),
        max_size=12,
    ),
)
def test_a_call_made_again_is_the_one_that_would_be_chosen(
    policy: PolicyName, plan: list[tuple[list[tuple[str, str, Priority]], int, list[float]]]
) -> None:
    def play(*, anew: bool) -> list[list[float]]:
        cost = CostModel()
        for name in LIMITS:
            cost.expect(name, {lane: {1: 1.0, 2: 1.9, 4: 3.9} for lane in "xy"})
        made: Scheduler[Row] = Scheduler(MAX_WAITING, POLICIES[policy], cost)
        for name, (capacity, max_rows) in LIMITS.items():
            made.add_model(name, capacity=capacity, max_rows=max_rows)
        lanes: dict[Row, str] = {}
        calls = []
        for now, (comers, cancelled, seconds) in enumerate(
            [*plan, *[([], 9, plan[0][2] if plan else [1.0])] * 400]
        ):
            for model, path, priority in comers if made.has_room(len(comers)) else []:
                row = Row(model, path[0], len(path), priority=priority, arrival=float(len(lanes)))
                lanes[row] = path
                made.submit([row])
            for index, (_, row) in enumerate(made):
                row.cancelled |= index == cancelled
            made.note_cancelled()
            made.drop(now)
            made.admit()
            if anew:
                made.retire(Row())  # A stranger goes: nothing is taken for granted.
            batch = made.batch(now)
            if batch is None:
                continue
            calls.append([row.arrival for row in batch.rows])
            cost.lane(batch.model, batch.lane).observe(
                batch.width, batch.width * seconds[len(calls) % len(seconds)]
            )
            for row in batch.rows:
                row.calls -= 1
                if row.calls:
                    row.lane = lanes[row][-row.calls]
                else:
                    made.retire(row)
        assert not made.busy
        return calls

    assert play(anew=False) == play(anew=True)


def test_a_call_made_again_becomes_smaller_once_its_size_does_not_pay() -> None:
    cost = CostModel()
    cost.expect("a", {"x": {1: 1.0, 2: 1.0}})
    made: Scheduler[Row] = Scheduler(MAX_WAITING, POLICIES[PolicyName.THROUGHPUT], cost)
    made.add_model("a", capacity=2, max_rows=2)
    made.submit([Row(calls=9), Row(calls=9)])
    assert [len(turn(made)), len(turn(made))] == [2, 2]
    for _ in range(100):
        cost.lane("a", "x").observe(1, 1.0)
        cost.lane("a", "x").observe(2, 5.0)
    assert len(turn(made)) == 1
