"""`python -m benchmarks load`: send a schedule to a running server and report on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.serving.client import Plan, send
from benchmarks.serving.machine import describe_machine, one_line
from benchmarks.serving.outcome import OK, Outcome
from benchmarks.serving.plots import draw
from benchmarks.serving.processes import ServerError, get
from benchmarks.serving.report import Report
from benchmarks.serving.summary import summarize
from benchmarks.serving.traffic import Arrival, Mix


@dataclass(frozen=True, slots=True)
class Output:
    """Where a report goes beside the terminal: JSON and a picture, if anywhere."""

    json_file: Path | None
    plot: Path | None


def main(
    plan: Plan, workload: Mapping[str, Any], *, objective_ms: float, check: int, output: Output
) -> Report:
    """Send a schedule, ask for some of its images again, print and write what came of it.

    Args:
        plan: the schedule.
        workload: the schedule in words, for the report.
        objective_ms: latency within which an answer counts towards goodput.
        check: answered requests that are sent again alone, to compare their images' bytes.
        output: where the report goes.
    """
    console = Console()
    machine = describe_machine()
    console.print(one_line(machine))
    outcomes = send(plan)
    checked, equal = repeat_alone(plan, outcomes, check)
    report = Report(machine, workload, summarize(outcomes, objective_ms), checked, equal)
    console.print(*report.tables(), sep="\n")
    if output.json_file is not None:
        report.save(output.json_file)
    if output.plot is not None:
        draw(outcomes, ", ".join(f"{name} {value}" for name, value in workload.items()), output.plot)
    return report


def read_mix(url: str, model: str | None, steps: tuple[int, int], **fields: Any) -> Mix:
    """Return a mix for a model of a running server.

    Args:
        url: the server's.
        model: its name; None means the default one.
        steps: fewest and most; left out where the model has none.
        fields: the mix's others.

    Raises:
        ServerError: it has no such model, or does not answer.
    """
    models = _document(url, "/models")["models"]
    name = model or next(entry["name"] for entry in models if entry["default"])
    detail = _document(url, f"/models/{name}")
    diffusion = detail["defaults"]["kind"] == "diffusion"
    return Mix(model=name, classes=detail["classes"], steps=steps if diffusion else None, **fields)


def repeat_alone(plan: Plan, outcomes: Sequence[Outcome], count: int) -> tuple[int, int]:
    """Send answered requests again, one at a time, and compare their images.

    Args:
        plan: what was sent.
        outcomes: what came of it.
        count: most requests that are repeated; evenly chosen.

    Returns:
        How many were repeated, and how many of them gave the same bytes of the same version.
    """
    fixed = [outcome.kind == OK and "seed" in plan.arrivals[outcome.index].body for outcome in outcomes]
    good = list(compress(outcomes, fixed))
    chosen = good[:: max(1, -(-len(good) // count))] if count else []
    again = [Arrival(0.0, _alone(plan.arrivals[outcome.index].body, outcome)) for outcome in chosen]
    repeated = send(Plan(plan.url, again, concurrency=1, path=plan.path)) if again else []
    equal = sum(
        (one.kind, one.digest, one.version) == (other.kind, other.digest, other.version)
        for one, other in zip(chosen, repeated, strict=True)
    )
    return len(chosen), equal


def _alone(body: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    pinned = {"version": outcome.version} if outcome.version else {}
    return {name: value for name, value in body.items() if name != "deadline_ms"} | pinned


def _document(url: str, path: str) -> Any:
    try:
        status, text = get(url, path)
    except OSError as error:
        raise ServerError(f"no server answers at {url}: {error}") from None
    if status != 200:
        raise ServerError(f"GET {path} answered {status}: {text.decode(errors='replace')}")
    return json.loads(text)
