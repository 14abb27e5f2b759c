"""Whether rows further along a path wait until others have caught up with them.

Where calls differ along a path, as VAR's scales do, rows share them only while they are equally far. A
newcomer that runs its first, cheap calls alone shares all the dear ones behind them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from engines.base import Leg
from server.scheduling.cost import CostModel
from server.scheduling.policy import Policy
from server.scheduling.schedulable import Schedulable, T


def followers_of(leaders: Sequence[T], others: Sequence[T]) -> list[T]:
    """Return those of the other rows that come to the leaders' lane soonest, all in one lane themselves."""
    lane = leaders[0].lane
    behind: dict[str, list[T]] = {}
    for row in others:
        if row.lane != lane and any(leg.lane == lane for leg in row.path[_position(row) :]):
            behind.setdefault(row.lane, []).append(row)
    return min(behind.values(), key=lambda rows: _calls_before(rows[0], lane), default=[])


def pays(
    leaders: Sequence[Schedulable],
    followers: Sequence[Schedulable],
    *,
    cost: CostModel,
    policy: Policy,
    now: float,
) -> bool:
    """Return whether waiting for the followers saves enough and makes no leader miss its deadline.

    With c(n) the seconds of a call of n rows, g leaders and m followers, sharing the calls that both still
    need saves the engine c(g) + c(m) - c(g + m) for each of them, and so much sooner the followers are done.
    It holds the leaders up by the followers' calls until then and by c(g + m) - c(g) for each shared one.
    """
    if not followers or not leaders:
        return False
    model, lane = leaders[0].model, leaders[0].lane
    before, shared = _split(followers[0], lane)
    g, m = len(leaders), len(followers)

    def seconds(legs: Sequence[Leg], rows: int) -> float:
        return _seconds(cost, model, legs, rows)

    together = seconds(shared, g + m)
    saved = seconds(shared, g) + seconds(shared, m) - together
    delay = seconds(before, m) + together - seconds(shared, g)
    if now + seconds(before, m) + together > min(row.deadline for row in leaders):
        return False
    gain = saved * m if policy.patience >= 1 else saved
    return gain > policy.patience * delay * g


def _seconds(cost: CostModel, model: Hashable, legs: Sequence[Leg], rows: int) -> float:
    return sum(leg.calls * cost.lane(model, leg.lane).seconds(rows * leg.width) for leg in legs)


def _position(row: Schedulable) -> int:
    """Return which leg of its path the row is in."""
    left = row.calls_left
    for index in range(len(row.path) - 1, -1, -1):
        left -= row.path[index].calls
        if left <= 0:
            return index
    return 0


def _split(row: Schedulable, lane: str) -> tuple[list[Leg], list[Leg]]:
    """Return the legs that are left to the row before it comes to the lane, and from there on."""
    position = _position(row)
    rest = row.path[position + 1 :]
    present = row.calls_left - sum(leg.calls for leg in rest)
    legs = [Leg(row.path[position].lane, present, row.path[position].width), *rest]
    meeting = next(index for index, leg in enumerate(legs) if leg.lane == lane)
    return legs[:meeting], legs[meeting:]


def _calls_before(row: Schedulable, lane: str) -> int:
    return sum(leg.calls for leg in _split(row, lane)[0])
