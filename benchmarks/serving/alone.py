"""An engine with nothing around it: the best that a server can give of it. A process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.serving.processes import ServerError, python
from benchmarks.serving.stub import StubEngine
from benchmarks.serving.toy import Tally, Toy
from engines import EngineSettings
from engines.base import Engine, ImageRequest
from models.version import open_version


@dataclass(frozen=True, slots=True)
class Alone:
    """What an engine does alone.

    Attributes:
        images_per_s: in full batches, from a row's opening to its pixels.
        lone_ms: of one image with no other beside it; median.
    """

    images_per_s: float
    lone_ms: float


def measure_alone(settings: Mapping[str, Any]) -> Alone:
    """Measure an engine in a process of its own.

    Args:
        settings: `steps` of an image and `seconds` to measure, with `call_s` of the toy model or `version`, a
            model version's directory.

    Raises:
        ServerError: the process failed.
    """
    done = subprocess.run(python(__name__, settings), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError((done.stderr.strip().splitlines() or ["no word"])[-1])
    return Alone(**json.loads(done.stdout.splitlines()[-1]))


def exercise(engine: Engine[Any], steps: int, seconds: float) -> Alone:
    """Make images in full batches for some seconds, and then some one by one."""
    _make(engine, 1, steps, 0)
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        _make(engine, engine.max_rows, steps, images)
        images += engine.max_rows
    rate = images / (time.perf_counter() - started)
    lone: list[float] = []
    while sum(lone) < seconds / 2:
        began = time.perf_counter()
        _make(engine, 1, steps, len(lone))
        lone.append(time.perf_counter() - began)
    return Alone(rate, 1000 * median(lone))


def _make(engine: Engine[Any], count: int, steps: int, seed: int) -> None:
    requests = (ImageRequest(class_id=0, seed=seed + index, steps=steps) for index in range(count))
    rows = [engine.open(engine.resolve(request)) for request in requests]
    while rows[0].calls_left:
        engine.step(rows)
    for row in rows:
        engine.image(row)
        engine.close(row)


def _main() -> None:
    given = json.loads(sys.argv[1])
    with TemporaryDirectory() as directory:
        if "version" in given:
            from engines import load  # noqa: PLC0415 - torch, which the toy model does without

            engine: Engine[Any] = load(open_version(Path(given["version"])), EngineSettings())
        else:
            engine = StubEngine(Toy(given["call_s"], Tally(Path(directory) / "tally")))
        print(json.dumps(asdict(exercise(engine, given["steps"], given["seconds"]))))


if __name__ == "__main__":
    _main()
