"""An engine without a network: pixels that depend on the request alone, and calls of a known cost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from engines.base import ImageRequest, Leg
from engines.errors import InvalidRequestError

SOLVERS = ("heun", "euler")


@dataclass(eq=False)
class FakeRow:
    request: ImageRequest
    lane: str
    calls_left: int


@dataclass(eq=False)
class FakeEngine:
    """`cost_s` seconds a call; `fail_class` breaks the call that it takes part in; `salt`: other pixels."""

    capacity: int = 8
    max_rows: int = 8
    cost_s: float = 0.0
    sleep: Callable[[float], None] = time.sleep
    lanes: int = 1
    fail_class: int | None = None
    size: int = 32
    salt: int = 0
    batches: list[list[ImageRequest]] = field(default_factory=list)
    rows: list[FakeRow] = field(default_factory=list)
    previewed: int = 0
    closed: int = 0
    costs: dict[str, dict[int, float]] = field(default_factory=dict)
    nbytes: int = 1_000_000

    def resolve(self, request: ImageRequest) -> ImageRequest:
        if request.solver not in (None, *SOLVERS):
            raise InvalidRequestError("solver", f"{request.solver!r} is none of {', '.join(SOLVERS)}")
        return dataclasses.replace(request, steps=request.steps or 4, solver=request.solver or "heun")

    def path(self, request: ImageRequest) -> list[Leg]:
        assert request.steps is not None
        return [Leg(f"lane{request.seed % self.lanes}", request.steps)]

    def open(self, request: ImageRequest) -> FakeRow:
        assert len(self.rows) < self.capacity
        assert request.steps is not None
        row = FakeRow(request, lane=self.path(request)[0].lane, calls_left=request.steps)
        self.rows.append(row)
        return row

    def step(self, rows: Sequence[FakeRow]) -> None:
        assert 0 < len(rows) <= self.max_rows
        assert len({row.lane for row in rows}) == 1
        assert all(row in self.rows and row.calls_left > 0 for row in rows)
        self.batches.append([row.request for row in rows])
        if self.cost_s:
            self.sleep(self.cost_s)
        if any(row.request.class_id == self.fail_class is not None for row in rows):
            raise RuntimeError("the fake engine fails, secretly")
        for row in rows:
            row.calls_left -= 1

    def preview(self, row: FakeRow) -> np.ndarray | None:
        """Each pixel grows to its final value in equal steps."""
        assert row in self.rows
        self.previewed += 1
        steps = row.request.steps or 1
        return (self._pixels(row) * ((steps - row.calls_left) / steps)).astype(np.uint8)

    def image(self, row: FakeRow) -> np.ndarray:
        assert row.calls_left == 0
        return self._pixels(row)

    def _pixels(self, row: FakeRow) -> np.ndarray:
        request = row.request
        entropy = [
            request.seed,
            request.class_id or 0,
            request.steps or 0,
            SOLVERS.index(request.solver or ""),
            self.salt,
        ]
        return np.random.default_rng(entropy).integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)

    def close(self, row: FakeRow) -> None:
        self.rows.remove(row)
        self.closed += 1
