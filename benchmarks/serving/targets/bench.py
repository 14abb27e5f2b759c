"""What all measurements share: lengths, randomness, the model, and the images compared on the way."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.serving import stub
from benchmarks.serving.alone import Alone, measure_alone
from benchmarks.serving.client import Plan, send
from benchmarks.serving.load import read_mix, repeat_alone
from benchmarks.serving.ours import CALL_S, stub_server
from benchmarks.serving.outcome import Outcome
from benchmarks.serving.processes import ServerProcess, free_port, server_command
from benchmarks.serving.traffic import Mix

STEPS = stub.STEPS


@dataclass(slots=True)
class Images:
    """Images that were asked for again alone, over all measurements."""

    checked: int = 0
    equal: int = 0


@dataclass(frozen=True, slots=True)
class Bench:
    """How long and of what is measured.

    Attributes:
        seconds: of one load.
        turns: measurements of which a median is told.
        minutes: of the soak.
        seed: of all schedules.
        version: directory of a model version that stands in for the toy model; None: the toy model.
        checks: requests of one load that are sent again alone.
    """

    seconds: float = 15.0
    turns: int = 3
    minutes: float = 2.0
    seed: int = 0
    version: Path | None = None
    checks: int = 30
    images: Images = field(default_factory=Images)

    def draw(self, turn: int = 0) -> random.Random:
        """Return the source of randomness of a measurement's turn."""
        return random.Random(self.seed * 1000 + turn)

    def alone(self) -> Alone:
        """Measure the engine with nothing around it, images of `STEPS` steps."""
        model = {"call_s": CALL_S} if self.version is None else {"version": str(self.version)}
        return measure_alone({**model, "steps": STEPS, "seconds": self.seconds / 3})

    @contextmanager
    def server(self, **settings: Any) -> Iterator[ServerProcess]:
        """Run a server of the model that is measured."""
        if self.version is None:
            with stub_server(**settings) as server:
                yield server.process
            return
        with TemporaryDirectory(prefix="ddo-serving-") as folder:
            port = free_port()
            command = server_command("--model", str(self.version), "--port", str(port))
            with ServerProcess(command, port, Path(folder) / "server.log") as process:
                yield process

    def mix(self, url: str, steps: tuple[int, int] = (STEPS, STEPS), **fields: Any) -> Mix:
        """Return the mix for the server's model."""
        return read_mix(url, None, steps, **fields)

    def send(self, plan: Plan) -> list[Outcome]:
        """Send a schedule, and some of what was answered again alone."""
        outcomes = send(plan)
        self.compare(plan, outcomes, self.checks)
        return outcomes

    def compare(self, plan: Plan, outcomes: Sequence[Outcome], count: int) -> int:
        """Send some of what was answered again alone; return how many images were not the same."""
        checked, equal = repeat_alone(plan, outcomes, count)
        self.images.checked += checked
        self.images.equal += equal
        return checked - equal
