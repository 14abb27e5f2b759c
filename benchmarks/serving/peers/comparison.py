"""`python -m benchmarks serve-peers`: one client and one model, server after server, in turns."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

from rich.console import Console
from rich.table import Table

from benchmarks.serving import client
from benchmarks.serving.client import Plan, send
from benchmarks.serving.machine import describe_machine, one_line
from benchmarks.serving.ours import CALL_S
from benchmarks.serving.outcome import OK
from benchmarks.serving.peers.arm import OTHERS, PLAIN, Ours
from benchmarks.serving.processes import ServerError, ServerProcess
from benchmarks.serving.summary import summarize
from benchmarks.serving.targets.bench import STEPS, Bench
from benchmarks.serving.targets.idle import overhead_ms
from benchmarks.serving.targets.saturation import CONCURRENCY, middle_rate
from benchmarks.serving.toy import MAX_ROWS, Tally
from benchmarks.serving.traffic import Arrival, Mix, at_once, poisson

CLASSES = 16
RATE, RANGE = 100.0, (5, 30)
IDLE_REQUESTS = 60
ABANDONED, ABANDONED_STEPS, LEAVE_S = 50, 100, 0.05
IDEAL = MAX_ROWS / (STEPS * CALL_S)
"""Images a second of full batches without a pause."""
SETTLE_S = 1.0
"""A server that makes no call for so long has nothing left to do."""
FIELDS = ("class_id", "seed", "steps")


class Arm(Protocol):
    """A server that is compared."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def serve(self, python: str) -> AbstractContextManager[tuple[ServerProcess, Tally]]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Figures:
    """What one server did in one turn.

    Attributes:
        idle_ms: a lone request beyond the engine, median.
        share: of `IDEAL`, saturated.
        cpu_ms: of all its processes, an image, saturated.
        p50_ms, p95_ms: at 100 requests a second of 5 to 30 steps; None where none was answered.
        unanswered: of these requests.
        abandoned: images still made of 50 whose clients left.
        resident_mb: of all its processes.
    """

    idle_ms: float
    share: float
    cpu_ms: float
    p50_ms: float | None
    p95_ms: float | None
    unanswered: int
    abandoned: int
    resident_mb: float


COLUMNS: Mapping[str, str] = {
    "idle_ms": "idle, p50 beyond the engine, ms",
    "share": "saturated, share of ideal",
    "cpu_ms": "CPU an image, ms",
    "p50_ms": "p50 at 100/s, ms",
    "p95_ms": "p95 at 100/s, ms",
    "unanswered": "not answered",
    "abandoned": f"abandoned rows still made, of {ABANDONED}",
    "resident_mb": "resident, MB",
}


def main(bench: Bench, python: Path | None, json_file: Path | None) -> None:
    """Measure all servers, print medians and write them.

    Args:
        bench: length and number of turns.
        python: the interpreter that has the peers; None: only the plain batcher, by our own.
        json_file: where the figures go too.
    """
    console = Console()
    machine = describe_machine()
    console.print(one_line(machine))
    arms: list[tuple[Arm, str, str]] = [(Ours(), sys.executable, ""), (PLAIN, sys.executable, "")]
    for peer in OTHERS if python else ():
        version = peer.version(str(python))
        if version is None:
            console.print(f"{peer.name} is left out: {python} has no package {peer.package}")
        else:
            arms.append((peer, str(python), version))
    figures: dict[str, list[Figures]] = {f"{arm.name} {version}".strip(): [] for arm, _, version in arms}
    for turn in range(bench.turns):
        for (arm, interpreter, _), own in zip(arms, figures.values(), strict=True):
            with console.status(f"turn {turn + 1}: {arm.name}"):
                try:
                    with arm.serve(interpreter) as (process, tally):
                        own.append(_measure(bench, turn, process, tally))
                except ServerError as error:
                    console.print(f"{arm.name} failed: {error}")
    console.print(_table({name: own for name, own in figures.items() if own}))
    if json_file is not None:
        turns = {name: [asdict(each) for each in own] for name, own in figures.items()}
        json_file.write_text(json.dumps({"machine": machine, "turns": turns}, indent=2) + "\n")


def _measure(bench: Bench, turn: int, process: ServerProcess, tally: Tally) -> Figures:
    draw, url = bench.draw(turn), process.url
    fixed = Mix(classes=CLASSES, steps=(STEPS, STEPS))
    # Lone requests first: a batcher that learns from its load would hold them back after a crowd.
    send(Plan(url, _plain(at_once(fixed, requests=IDLE_REQUESTS // 3, draw=draw)), concurrency=1))
    idle = Plan(url, _plain(at_once(fixed, requests=IDLE_REQUESTS, draw=draw)), concurrency=1)
    idle_ms = overhead_ms(idle, tally)
    count = int(IDEAL * bench.seconds)
    before = process.cpu_seconds()
    plan = Plan(url, _plain(at_once(fixed, requests=count, draw=draw)), concurrency=CONCURRENCY)
    saturated = send(plan)
    cpu = process.cpu_seconds() - before
    mixed = poisson(Mix(classes=CLASSES, steps=RANGE), rate=RATE, seconds=bench.seconds, draw=draw)
    steady = summarize(send(Plan(url, _plain(mixed))), objective_ms=1000)
    return Figures(
        idle_ms=idle_ms,
        share=middle_rate(saturated) / IDEAL,
        cpu_ms=1000 * cpu / max(1, sum(outcome.kind == OK for outcome in saturated)),
        p50_ms=steady.latency_ms.get("p50"),
        p95_ms=steady.latency_ms.get("p95"),
        unanswered=steady.requests - steady.kinds.get(OK, 0),
        abandoned=_abandoned(bench, turn, url, tally),
        resident_mb=process.usage().resident / 1e6,
    )


def _abandoned(bench: Bench, turn: int, url: str, tally: Tally) -> int:
    """Return how many images are made of requests whose clients leave before any could be there."""
    mix = Mix(classes=CLASSES, steps=(ABANDONED_STEPS, ABANDONED_STEPS))
    arrivals = _plain(at_once(mix, requests=ABANDONED, draw=bench.draw(turn)))
    before = tally.read().images
    leaving = [dataclasses.replace(arrival, leave_s=LEAVE_S) for arrival in arrivals]
    asyncio.run(client.run(Plan(url, leaving)))
    calls = -1
    while calls != tally.read().calls:
        calls = tally.read().calls
        time.sleep(SETTLE_S)
    return tally.read().images - before


def _plain(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Keep what every server understands."""
    return [
        dataclasses.replace(arrival, body={name: arrival.body[name] for name in FIELDS})
        for arrival in arrivals
    ]


def _table(figures: Mapping[str, Sequence[Figures]]) -> Table:
    table = Table("", *COLUMNS.values(), title="medians")
    for name, turns in figures.items():
        cells = []
        for column in COLUMNS:
            values = [value for each in turns if (value := getattr(each, column)) is not None]
            middle = median(values) if values else None
            cells.append("-" if middle is None else f"{middle:.1%}" if column == "share" else f"{middle:.3g}")
        table.add_row(name, *cells)
    return table
