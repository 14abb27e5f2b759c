"""How many devices a fleet needs, and what they do then."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from benchmarks.fleet.profile import DeviceProfile
from benchmarks.fleet.simulation import Loss, Run, Simulation, Workload
from benchmarks.serving.outcome import OK
from benchmarks.serving.summary import percentiles
from server.settings import Settings

PRECISION = 0.01
"""Of the load that a cell bears, as a share of its devices' best rate."""

REQUESTS = 2000
"""Fewest of a simulation: 20 of them are the slowest hundredth."""

LIVES = 20
"""A simulation lasts as long as so many images take, one after the other, at least."""

LOST_AFTER = 0.25
"""Share of a simulation after which a failure domain is lost."""


class GoalError(Exception):
    """A goal that no number of devices reaches; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a fleet has to do while it loses a failure domain.

    Attributes:
        within_s: seconds in which an image is wanted; clients send it as their deadline.
        share: of the requests that get theirs in time.
        domain: devices that die together, a machine or a rack; 0: nothing dies.
        cell: most devices behind one router. Larger fleets are cells side by side that share nothing.
    """

    within_s: float
    share: float = 0.99
    domain: int = 0
    cell: int = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """A fleet that reaches a goal.

    Attributes:
        images_per_minute: that it makes.
        cells: that share nothing.
        devices: of all cells together.
        utilisation: share of the time that surviving devices are in calls.
        latency_ms: percentiles by name, mean and max, of answers.
        answered: share of requests that got an image in time.
        retried: share of requests that a dying device had under way.
    """

    images_per_minute: float
    cells: int
    devices: int
    utilisation: float
    latency_ms: dict[str, float]
    answered: float
    retried: float

    def cost(self, price: float) -> float:
        """Return the price of a thousand images where a device costs `price` an hour."""
        return 1000 * self.devices * price / (60 * self.images_per_minute)


class Sizing:
    """Finds fleets for one device and one goal; the same seed finds the same.

    Args:
        profile: of every device.
        settings: of every server.
        goal: to reach.
        seed: of all randomness.

    Raises:
        GoalError: the goal is out of reach, however many devices there are.
    """

    def __init__(self, profile: DeviceProfile, settings: Settings, goal: Goal, seed: int) -> None:
        self._profile = profile
        self._settings = settings
        self._goal = goal
        self._seed = seed
        alone = profile.seconds(1) + profile.answer_s
        if alone > goal.within_s:
            raise GoalError(
                f"an image takes {1000 * alone:.0f} ms with a device to itself: allow at least that, "
                "or ask for fewer steps"
            )
        if goal.domain >= goal.cell:
            raise GoalError(
                f"a cell of {goal.cell} devices is gone when {goal.domain} die together: make it larger"
            )
        self._cell_rate = self._most(goal.cell)

    def plan(self, images_per_minute: float) -> Plan:
        """Return the smallest fleet that makes so many images and reaches the goal."""
        rate = images_per_minute / 60
        if rate > self._cell_rate:
            cells, devices = math.ceil(rate / self._cell_rate), self._goal.cell
        else:
            cells, devices = 1, self._fewest(rate)
        run = self._play(devices, rate / cells)
        good = [outcome for outcome in run.outcomes if outcome.kind == OK]
        return Plan(
            images_per_minute,
            cells,
            cells * devices,
            run.utilisation,
            percentiles([1000 * outcome.latency_s for outcome in good]),
            self._answered(run),
            run.retried / len(run.outcomes),
        )

    def _most(self, devices: int) -> float:
        """Return the most images a second that a cell of so many devices bears."""
        best = devices * self._profile.best_rate
        low, high = 0.0, 1.0
        while high - low > PRECISION:
            middle = (low + high) / 2
            low, high = (middle, high) if self._bears(devices, middle * best) else (low, middle)
        if not low:
            raise GoalError(
                f"even a cell of {devices} devices that is all but idle does not answer "
                f"{self._goal.share:.1%} in time: allow more time"
            )
        return low * best

    def _fewest(self, rate: float) -> int:
        """Return the fewest devices of one cell that bear a rate which the largest cell bears."""
        low, high = self._goal.domain, self._goal.cell
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._bears(middle, rate) else (middle, high)
        return high

    def _bears(self, devices: int, rate: float) -> bool:
        return self._answered(self._play(devices, rate)) >= self._goal.share

    def _answered(self, run: Run) -> float:
        within = [each for each in run.outcomes if each.kind == OK and each.latency_s <= self._goal.within_s]
        return len(within) / len(run.outcomes)

    def _play(self, devices: int, rate: float) -> Run:
        seconds = max(REQUESTS / rate, LIVES * self._profile.seconds(1))
        workload = Workload(rate=rate, seconds=seconds, deadline_s=self._goal.within_s)
        loss = Loss(self._goal.domain, LOST_AFTER * seconds) if self._goal.domain else None
        simulation = Simulation(self._profile, devices, self._settings, random.Random(self._seed))
        return simulation.run(workload, loss)
