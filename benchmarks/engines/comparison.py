"""Ways to run the same thing, measured in turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.progress import Progress

from benchmarks.engines.process import Arm, ArmError, Timing

Case = Mapping[str, Any]


@dataclass(frozen=True)
class Contender:
    """One way: what its process runs.

    Attributes:
        name: in tables.
        module: answers the cases.
        settings: its argument.
        warm_start: start it twice, so that it finds what the first start kept, and keep the second.
    """

    name: str
    module: str
    settings: Mapping[str, Any]
    warm_start: bool = False


@dataclass(frozen=True)
class Measurement:
    """What one way did.

    Attributes:
        ready_seconds: from the start of its process until it could take a case.
        timings: of each case by its label, one a turn.
        errors: relative distance of its result from the first way's, by the case's label, where compared.
        failure: why it was not measured, or not to the end.
    """

    ready_seconds: float | None
    timings: Mapping[str, Sequence[Timing]]
    errors: Mapping[str, float]
    failure: str | None

    def wall(self, label: str) -> float | None:
        """Return the median seconds of a case."""
        return median(timing.wall for timing in self.timings[label]) if self.timings.get(label) else None

    def compute(self, label: str) -> float | None:
        """Return the median CPU seconds of a case, of all threads together."""
        return median(timing.compute for timing in self.timings[label]) if self.timings.get(label) else None


def compare(
    contenders: Sequence[Contender],
    cases: Mapping[str, Case],
    *,
    turns: int,
    threads: int,
    folder: Path,
    check: bool,
) -> dict[str, Measurement]:
    """Measure every contender on every case, all of them taking turns. One that fails is out, and says why.

    Args:
        contenders: the first is what results are compared with.
        cases: what is computed, by label.
        turns: timings of each; one call before them is not counted.
        threads: of each process.
        folder: for results.
        check: compare results; they must be arrays of the same meaning.
    """
    arms: dict[str, Arm] = {}
    failures: dict[str, str] = {}
    timings: dict[str, dict[str, list[Timing]]] = {
        contender.name: {label: [] for label in cases} for contender in contenders
    }
    with ExitStack() as stack, Progress(transient=True) as progress:
        task = progress.add_task("", total=len(contenders) * (1 + len(cases) * (1 + turns)))

        def attempt(name: str, action: Any) -> Any:
            progress.update(task, advance=1, description=name)
            try:
                return action()
            except ArmError as error:
                failures[name] = str(error)
                return None

        for contender in contenders:
            arm = attempt(contender.name, lambda contender=contender: _start(contender, threads))
            if arm is not None:
                arms[contender.name] = stack.enter_context(arm)
        ready = {name: arm.ready_seconds for name, arm in arms.items()}
        for label, case in cases.items():
            for turn in range(-1, turns):
                for name, arm in arms.items():
                    if name in failures:
                        continue
                    saved = {"save": str(folder / f"{name}, {label}.npy")} if check and turn < 0 else {}
                    timing = attempt(name, lambda arm=arm, given={**case, **saved}: arm.run(given))
                    if timing is not None and turn >= 0:
                        timings[name][label].append(timing)
    exact = contenders[0].name
    return {
        name: Measurement(
            ready.get(name),
            measured,
            _errors(folder, name, exact, cases) if check and name != exact else {},
            failures.get(name),
        )
        for name, measured in timings.items()
    }


def _start(contender: Contender, threads: int) -> Arm:
    if contender.warm_start:
        Arm(contender.module, contender.settings, threads).close()
    return Arm(contender.module, contender.settings, threads)


def _errors(folder: Path, name: str, exact: str, labels: Iterable[str]) -> dict[str, float]:
    errors = {}
    for label in labels:
        paths = [folder / f"{each}, {label}.npy" for each in (name, exact)]
        if all(path.exists() for path in paths):
            value, expected = (np.load(path).astype(np.float64) for path in paths)
            errors[label] = float(np.linalg.norm(value - expected) / np.linalg.norm(expected))
    return errors
