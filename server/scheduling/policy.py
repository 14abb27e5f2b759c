"""In which order rows are served: policies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

FAIRNESS_S = 5.0
"""Under `deadline` no row is overtaken by one that comes so many seconds later, whatever their deadlines."""

STRETCH = 4.0
"""Under `latency` a row is overtaken by cheaper ones that come up to so many times the difference later."""


class PolicyName(StrEnum):
    """The policies that there are."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Policy:
    """An order of rows, and how far calls may be smaller than what is best for throughput.

    Attributes:
        rank: from a row's arrival and deadline, seconds on one clock, and a function that gives the seconds
            that it needs, to its rank: the lowest goes first, of equals the one that came first. A rank never
            changes and grows with the arrival, so that every row is the first in turn and none starves.
        slack: share of the best throughput that a call may give up to be done sooner while rows are few.
        patience: engine seconds that a second of waiting for others to catch up has to save, for each row
            that waits.
    """

    rank: Callable[[float, float, Callable[[], float]], float]
    slack: float
    patience: float


def _by_arrival(arrival: float, _deadline: float, _seconds: Callable[[], float]) -> float:
    return arrival


def _by_cost(arrival: float, _deadline: float, seconds: Callable[[], float]) -> float:
    return arrival + STRETCH * seconds()


def _by_deadline(arrival: float, deadline: float, _seconds: Callable[[], float]) -> float:
    return min(deadline, arrival + FAIRNESS_S)


POLICIES: Mapping[PolicyName, Policy] = MappingProxyType(
    {
        PolicyName.THROUGHPUT: Policy(_by_arrival, slack=0.0, patience=0.1),
        PolicyName.LATENCY: Policy(_by_cost, slack=0.1, patience=1.0),
        PolicyName.DEADLINE: Policy(_by_deadline, slack=0.1, patience=1.0),
    }
)
