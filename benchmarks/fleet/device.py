"""A simulated device: the server's scheduler and admission around calls that only take their time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fleet.profile import DeviceProfile
from engines.base import ImageRequest, Leg
from server.hosting.version_key import VersionKey
from server.scheduling.admission import Admission
from server.scheduling.cost import CostModel
from server.scheduling.policy import POLICIES, PolicyName
from server.scheduling.scheduler import Scheduler
from server.scheduling.ticket import Ticket
from server.settings import Settings


@dataclass(slots=True, eq=False)
class SimulatedRow:
    """An image under way, as `engines.base.Row`."""

    request: ImageRequest
    path: Sequence[Leg]
    calls_left: int

    @property
    def lane(self) -> str:
        """The kind of the next call."""
        left = self.calls_left
        for leg in reversed(self.path):
            if left <= leg.calls:
                return leg.lane
            left -= leg.calls
        return self.path[0].lane


class Device:
    """One engine thread, told the time by whoever simulates it."""

    def __init__(self, profile: DeviceProfile, settings: Settings) -> None:
        """Start idle, with the bounds and the policy of `settings`."""
        self._path = profile.path
        self._calls = sum(leg.calls for leg in profile.path)
        self._key = VersionKey(profile.model, 1)
        self._cost = CostModel()
        self._cost.expect(self._key, profile.costs)
        policy = POLICIES[PolicyName(settings.policy)]
        self._scheduler: Scheduler[Ticket] = Scheduler(settings.queue_rows, policy, self._cost)
        self._scheduler.add_model(self._key, capacity=profile.capacity, max_rows=profile.max_rows)
        self._admission = Admission(self._scheduler, self._cost, max_pending_s=settings.pending_s)
        self._batch: Sequence[Ticket] = []
        self._free_at = 0.0
        self.busy_s = 0.0

    @property
    def calling(self) -> bool:
        """Whether a call is under way."""
        return bool(self._batch)

    def submit(self, now: float, deadline: float, *, promised: bool) -> Ticket:
        """Take one image.

        Raises:
            QueueFullError: it is refused, as the server would refuse it.
            TooLateError: likewise.
        """
        ticket = Ticket(
            model=self._key,
            request=ImageRequest(class_id=None, seed=0),
            arrival=now,
            deadline=deadline,
            path=self._path,
            promised=promised,
        )
        self._admission.check([ticket], now, self._free_at)
        self._scheduler.submit([ticket])
        return ticket

    def begin(self, now: float) -> tuple[float, list[Ticket]]:
        """Begin a call if there is something to do; return when it ends, and the images that are too late.

        The end of no call is infinitely far away.
        """
        dropped = [ticket for ticket, _ in self._scheduler.drop(now)]
        for ticket in self._scheduler.admit():
            ticket.row = SimulatedRow(ticket.request, self._path, self._calls)
        batch = self._scheduler.batch(now)
        if batch is None:
            return math.inf, dropped
        self._batch = batch.rows
        seconds = self._cost.lane(self._key, batch.lane).seconds(batch.width)
        self._free_at = now + seconds
        self.busy_s += seconds
        return self._free_at, dropped

    def end(self, now: float) -> list[Ticket]:
        """End the call under way and return the images that are finished."""
        finished = []
        for ticket in self._batch:
            assert isinstance(ticket.row, SimulatedRow), "a row is opened before its first call"
            ticket.row.calls_left -= 1
            if ticket.row.calls_left == 0:
                self._scheduler.retire(ticket)
                self._admission.learn(ticket, now)
                finished.append(ticket)
        self._batch = []
        return finished

    def clear(self) -> list[Ticket]:
        """Lose everything, as a machine that dies; return the images that were under way."""
        self._batch = []
        return self._scheduler.clear()
