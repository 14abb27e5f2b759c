"""What one device does: the costs of its engine calls, and the calls that an image needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from engines.base import Engine, ImageRequest, Leg
from models.frozen import FrozenModel
from server.scheduling.cost import CostModel


class ProfileError(Exception):
    """A file that describes no device; the message says why."""


class DeviceProfile(FrozenModel):
    """One device with one model.

    Attributes:
        model: what it serves.
        device: what it is, in words.
        capacity, max_rows: of the engine (`engines.base.Engine`).
        costs: seconds of a call by its rows, for each lane, as `ddo_call_cost_seconds` has them.
        path: the calls of one image, in their order.
        answer_s: seconds of an answer beyond its engine calls, as `benchmarks overhead` measures them.
    """

    model: str
    device: str
    capacity: int = Field(ge=1)
    max_rows: int = Field(ge=1)
    costs: Mapping[str, Mapping[int, float]]
    path: tuple[Leg, ...] = Field(min_length=1)
    answer_s: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _every_call_has_a_cost(self) -> DeviceProfile:
        for leg in self.path:
            seconds = self.costs.get(leg.lane)
            if not seconds or any(rows < 1 or cost <= 0 for rows, cost in seconds.items()):
                raise ValueError(f"lane {leg.lane!r} needs costs: seconds above 0, by rows from 1")
        return self

    @classmethod
    def measure(cls, engine: Engine[Any], request: ImageRequest, *, model: str, device: str) -> DeviceProfile:
        """Describe an engine by what it measured when it was made; lanes that it left out are timed here.

        Raises:
            InvalidRequestError: it cannot make `request`.
        """
        resolved = engine.resolve(request)
        path = tuple(engine.path(resolved))
        costs = {lane: dict(seconds) for lane, seconds in engine.costs.items() if seconds}
        if any(leg.lane not in costs for leg in path):
            costs = {**_time_calls(engine, resolved), **costs}
        return cls(
            model=model,
            device=device,
            capacity=engine.capacity,
            max_rows=engine.max_rows,
            costs=costs,
            path=path,
        )

    @classmethod
    def read(cls, file: Path) -> DeviceProfile:
        """Read a profile from JSON.

        Raises:
            ProfileError: the file holds none.
        """
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "the file"
            raise ProfileError(f"{file} describes no device: {where}: {fault['msg']}") from None

    @property
    def best_rate(self) -> float:
        """Images a second of calls as full as pays, one after the other."""
        return max(rows / self.seconds(rows) for rows in range(1, self.max_rows + 1))

    def seconds(self, rows: int) -> float:
        """Return the seconds of all calls of so many images together."""
        cost = CostModel()
        cost.expect(self.model, self.costs)
        calls = sum(leg.calls for leg in self.path)
        return cost.row_seconds(self.model, self.path, calls, rows)


def _time_calls(engine: Engine[Any], request: ImageRequest) -> dict[str, dict[int, float]]:
    """Make images of a resolved request, more and more together; return seconds by lane and rows."""
    costs: dict[str, dict[int, float]] = {}
    count = 1
    while count <= engine.max_rows:
        rows = [engine.open(replace(request, seed=seed)) for seed in range(count)]
        while rows[0].calls_left:
            lane, started = rows[0].lane, time.perf_counter()
            engine.step(rows)
            seconds = time.perf_counter() - started
            known = costs.setdefault(lane, {})
            known[count] = min(seconds, known.get(count, seconds))
        for row in rows:
            engine.close(row)
        count *= 2
    return costs
