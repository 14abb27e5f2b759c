"""A fleet behind one router, event by event."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from benchmarks.fleet.device import Device
from benchmarks.fleet.profile import DeviceProfile
from benchmarks.serving.outcome import OK, Outcome
from server.api.problems import KINDS
from server.errors import ServeError
from server.ray.balance import Balance
from server.scheduling.ticket import Ticket
from server.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is asked of a fleet.

    Attributes:
        rate: requests a second, of one image each; their arrivals are a Poisson process.
        seconds: after which none arrives.
        deadline_s: after which nobody waits for an image.
        promised: clients sent that deadline, so what would miss it is refused.
        attempts: replicas that the router asks before a refusal reaches the client.
    """

    rate: float
    seconds: float
    deadline_s: float
    promised: bool = True
    attempts: int = 3


@dataclass(frozen=True, slots=True)
class Loss:
    """Devices that die together, `after_s` seconds after the start, and do not come back."""

    devices: int
    after_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a simulation.

    Attributes:
        outcomes: of every request; times are seconds from the start.
        utilisation: share of the time that devices were in calls, of those that lived to the end.
        retried: requests that were under way on a device that died.
    """

    outcomes: Sequence[Outcome]
    utilisation: float
    retried: int


@dataclass(slots=True)
class _Asked:
    """A request that is not answered yet."""

    index: int
    due: float
    place: int = -1


@dataclass(slots=True)
class Simulation:
    """Devices, a router and a clock.

    Args:
        profile: of every device.
        devices: how many.
        settings: of every server: its bounds and policy.
        draw: source of all randomness.
    """

    profile: DeviceProfile
    devices: int
    settings: Settings
    draw: random.Random
    _events: list[tuple[float, int, str, int]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _asked: dict[Ticket, _Asked] = field(default_factory=dict)
    _outcomes: dict[int, Outcome] = field(default_factory=dict)

    def run(self, workload: Workload, loss: Loss | None = None) -> Run:
        """Play the workload to its last answer; `loss` happens meanwhile."""
        fleet = {place: Device(self.profile, self.settings) for place in range(self.devices)}
        balance: Balance[int] = Balance(self.draw)
        retried, index, now = 0, 0, 0.0
        self._put(self.draw.expovariate(workload.rate), "arrival", -1)
        if loss is not None:
            self._put(loss.after_s, "loss", loss.devices)
        while self._events:
            now, _, kind, place = heappop(self._events)
            if kind == "arrival":
                self._send(fleet, balance, _Asked(index, now), now, workload)
                index += 1
                following = now + self.draw.expovariate(workload.rate)
                if following < workload.seconds:
                    self._put(following, "arrival", -1)
            elif kind == "loss":
                dying = list(fleet)[:place]
                lost = [ticket for each in dying for ticket in fleet.pop(each).clear()]
                retried += len(lost)
                for ticket in lost:
                    asked = self._asked.pop(ticket)
                    balance.add(asked.place, -1)
                    self._send(fleet, balance, asked, now, workload)
            elif device := fleet.get(place):
                for ticket in device.end(now):
                    self._answer(balance, ticket, now + self.profile.answer_s, OK)
                self._begin(device, place, balance, now)
        busy = sum(device.busy_s for device in fleet.values())
        outcomes = [self._outcomes[each] for each in sorted(self._outcomes)]
        return Run(outcomes, busy / (now * len(fleet)) if fleet else 0.0, retried)

    def _send(
        self,
        fleet: dict[int, Device],
        balance: Balance[int],
        asked: _Asked,
        now: float,
        workload: Workload,
    ) -> None:
        """Ask one device after the other, as the router does."""
        kind = "no-replica"
        for place in balance.order(fleet)[: workload.attempts]:
            device = fleet[place]
            try:
                deadline = asked.due + workload.deadline_s
                ticket = device.submit(now, deadline, promised=workload.promised)
            except ServeError as refusal:
                kind = KINDS[type(refusal)].slug
                continue
            asked.place = place
            self._asked[ticket] = asked
            balance.add(place, 1)
            if not device.calling:
                self._begin(device, place, balance, now)
            return
        self._outcomes[asked.index] = Outcome(asked.index, asked.due, asked.due, now, kind)

    def _begin(self, device: Device, place: int, balance: Balance[int], now: float) -> None:
        ends, late = device.begin(now)
        for ticket in late:
            self._answer(balance, ticket, now, "deadline")
        if ends < math.inf:
            self._put(ends, "call", place)

    def _answer(self, balance: Balance[int], ticket: Ticket, now: float, kind: str) -> None:
        asked = self._asked.pop(ticket)
        balance.add(asked.place, -1)
        images = int(kind == OK)
        self._outcomes[asked.index] = Outcome(asked.index, asked.due, asked.due, now, kind, images=images)

    def _put(self, when: float, kind: str, place: int) -> None:
        heappush(self._events, (when, next(self._numbers), kind, place))
