"""A server process around the toy model: all of the real one but its networks, so without torch."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from benchmarks.serving.toy import Tally, Toy
from engines.base import ImageRequest, Leg
from engines.errors import InvalidRequestError
from engines.settings import EngineSettings
from models.references import parse_reference
from models.registry import Registry
from models.spec import DiffusionDefaults, Lineage, ModelSpec, PixelCodec
from models.version import ModelVersion
from server import logs
from server.app import create_app
from server.run import run
from server.settings import Settings

NAME = "toy"
CLASSES = 16
STEPS = 18
SOLVER = "heun"
LANE = "step"
NBYTES = 1 << 20
TASKS = "/tasks"
"""Tells how many tasks the event loop has, which only the process itself knows."""


@dataclass(eq=False, slots=True)
class StubRow:
    """One image being made."""

    request: ImageRequest
    state: int
    calls_left: int
    lane: str = LANE


class StubEngine:
    """The toy model as an engine; a row takes as many calls as it has steps."""

    def __init__(self, toy: Toy) -> None:
        """Serve `toy`."""
        self._toy = toy
        self.max_rows = toy.max_rows
        self.capacity = 4 * toy.max_rows
        self.nbytes = NBYTES
        self.costs: Mapping[str, Mapping[int, float]] = {
            LANE: dict.fromkeys(range(1, toy.max_rows + 1), toy.call_s)
        }

    def resolve(self, request: ImageRequest) -> ImageRequest:
        """See `Engine`."""
        if request.solver not in (None, SOLVER):
            raise InvalidRequestError("solver", f"{request.solver!r} is not {SOLVER}")
        return dataclasses.replace(request, steps=request.steps or STEPS, solver=SOLVER)

    def path(self, request: ImageRequest) -> Sequence[Leg]:
        """See `Engine`."""
        return [Leg(LANE, request.steps or STEPS)]

    def open(self, request: ImageRequest) -> StubRow:
        """See `Engine`."""
        steps = request.steps or STEPS
        return StubRow(request, self._toy.noise(request.class_id or 0, request.seed, steps), steps)

    def step(self, rows: Sequence[StubRow]) -> None:
        """See `Engine`."""
        states = self._toy.call([row.state for row in rows])
        for row, state in zip(rows, states, strict=True):
            row.state = state
            row.calls_left -= 1

    def preview(self, row: StubRow) -> npt.NDArray[np.uint8]:
        """See `Engine`."""
        return self._toy.preview(row.state)

    def image(self, row: StubRow) -> npt.NDArray[np.uint8]:
        """See `Engine`."""
        return self._toy.image(row.state)

    def close(self, row: StubRow) -> None:
        """See `Engine`."""


def publish_versions(root: Path, count: int) -> None:
    """Publish versions of the toy model in the registry at `root`; the first one becomes the current one."""

    def build(_: Path) -> ModelSpec:
        return ModelSpec(
            name=NAME,
            family="edm",
            networks={},
            codec=PixelCodec(),
            class_names=tuple(f"class {number}" for number in range(CLASSES)),
            defaults=DiffusionDefaults(steps=STEPS),
            licence="Apache-2.0",
            lineage=Lineage(source="benchmarks"),
        )

    registry = Registry(root)
    for number in range(count):
        registry.publish(build, point=number == 0)


def main() -> None:
    """Serve until a signal; the one argument is JSON: `call_s`, `tally` (a file) and `settings`."""
    given = json.loads(sys.argv[1])
    tally = Tally(Path(given["tally"]))
    settings = Settings(**given["settings"])

    def load(version: ModelVersion, _: EngineSettings) -> StubEngine:
        return StubEngine(Toy(given["call_s"], tally, salt=version.number or 0))

    async def tasks(_: Request) -> Response:
        return PlainTextResponse(str(len(asyncio.all_tasks())))

    logs.configure(settings.log_level, sys.stderr)
    references = [parse_reference(name, settings.registry) for name in settings.models]
    versions = [version for reference in references for version in reference.open()]
    app = create_app(settings, versions, load, references)
    app.add_route(TASKS, tasks)
    answered = run(app, settings)
    sys.exit(0 if answered else 1)


if __name__ == "__main__":
    main()
