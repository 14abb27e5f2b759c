"""What scheduling sees of a row."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from engines.base import Leg
from server.scheduling.priority import Priority


class Schedulable(Protocol):
    """A row. Times are seconds on one clock.

    Attributes:
        model: what makes it; rows of two models never share a call.
        path: the engine calls that it needs.
        calls_left: how many of them are still to be made; all before it is open.
        lane: the kind of the next one; active rows of one model with equal lanes may share it.
        priority: whether somebody waits for it.
        arrival: when it came.
        deadline: when nobody wants it any more.
        cancelled: nobody wants it any more.
        promised: whether it was accepted because it would be done by its deadline.
    """

    @property
    def model(self) -> Hashable: ...  # noqa: D102

    @property
    def path(self) -> Sequence[Leg]: ...  # noqa: D102

    @property
    def calls_left(self) -> int: ...  # noqa: D102

    @property
    def lane(self) -> str: ...  # noqa: D102

    @property
    def priority(self) -> Priority: ...  # noqa: D102

    @property
    def arrival(self) -> float: ...  # noqa: D102

    @property
    def deadline(self) -> float: ...  # noqa: D102

    @property
    def cancelled(self) -> bool: ...  # noqa: D102

    @property
    def promised(self) -> bool: ...  # noqa: D102


class Turn(NamedTuple):
    """A row's place in the order: the lowest goes first.

    Attributes:
        batch: whether its priority is `batch`.
        rank: what the policy says.
        number: in order of arrival.
    """

    batch: bool
    rank: float
    number: int


T = TypeVar("T", bound=Schedulable)


def width_of(path: Sequence[Leg], lane: str) -> int:
    """Return as how many rows a row counts in calls of a lane; 1 if its path has none there."""
    if len(path) == 1:  # Asked of every row at every call.
        return path[0].width
    return next((leg.width for leg in path if leg.lane == lane), 1)


def legs_left(path: Sequence[Leg], calls_left: int) -> list[tuple[Leg, int]]:
    """Return the legs that a row has not done and how many calls of each are left, the last leg first."""
    if len(path) == 1:  # Asked of every row by every request.
        return [(path[0], calls_left)]
    legs = []
    for leg in reversed(path):
        if calls_left <= 0:
            break
        legs.append((leg, min(leg.calls, calls_left)))
        calls_left -= leg.calls
    return legs
