"""What decides for a cluster: where requests go, how many replicas there are, what a client sees twice."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from server.ray.balance import Balance
from server.ray.call import Call
from server.ray.replay import Replay
from server.ray.scaling import PendingCompute


def test_the_replica_with_the_fewest_images_is_asked_first() -> None:
    balance: Balance[str] = Balance(random.Random(0))
    balance.add("a", 3)
    balance.add("b", 1)
    with balance.hold("c", 2):
        assert balance.order(["a", "b", "c"]) == ["b", "c", "a"]
    assert balance.order(["a", "b", "c"]) == ["c", "b", "a"]
    assert {balance.order(["x", "y"])[0] for _ in range(50)} == {"x", "y"}, "ties are drawn"


def event(name: str, data: str = "{}") -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


def test_a_stream_that_is_told_again_is_joined_to_what_was_seen() -> None:
    replay = Replay()
    first = [event("queued"), event("preview", '{"index": 0}'), event("image", '{"index": 0}')]
    assert [replay.news(chunk) for chunk in first] == [True, True, True]
    again = [*first, b": still here\n\n", event("preview", '{"index": 1}'), event("image", '{"index": 1}')]
    assert [replay.news(chunk) for chunk in again] == [False, False, False, True, True, True]
    assert replay.news(event("done"))


def test_a_call_is_data_and_avoids_who_refused() -> None:
    scope = {"type": "http", "path": "/generate", "headers": [(b"a", b"b")], "app": object(), "state": {}}
    call = Call.of(scope, b"{}").without("one").without("two")
    assert call.avoid == {"one", "two"}
    assert call.scope.keys() == {"type", "path", "headers", "client", "server"}


@pytest.mark.parametrize(
    ("pending", "target", "now", "expected"),
    [
        ({}, 1, 100.0, 1),
        ({"a": 1.9}, 1, 100.0, 1),
        ({"a": 3.0, "b": 2.0}, 2, 100.0, 3),
        ({"a": 300.0}, 1, 100.0, 8),
        ({"a": 0.1, "b": 0.0, "c": 0.0}, 3, 100.0, 3),  # it would have been enough for 5 s
        ({"a": 0.1, "b": 0.0, "c": 0.0}, 3, 106.0, 2),  # for 11 s: one leaves at a time
        ({"a": 0.0}, 1, 106.0, 1),
    ],
)
def test_replicas_follow_the_pending_compute(
    pending: dict[str, float], target: int, now: float, expected: int
) -> None:
    policy = PendingCompute(pending_s=2.0, idle_s=10.0)
    context: Any = SimpleNamespace(
        aggregated_metrics={"pending_s": pending},
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=8,
        target_num_replicas=target,
        current_time=now,
        policy_state={"enough_since": 95.0},
    )
    assert policy(context)[0] == expected
