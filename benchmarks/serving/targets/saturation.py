"""Saturation: how much of an engine the server keeps busy, and what an image costs the server."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.serving.client import Plan, send
from benchmarks.serving.outcome import OK, Outcome
from benchmarks.serving.targets.bench import Bench
from benchmarks.serving.targets.reading import Reading
from benchmarks.serving.traffic import at_once

PROMISE = "saturation"
CONCURRENCY = 64
MAX_REQUESTS = 20_000


def measure(bench: Bench) -> list[Reading]:
    """Measure the engine alone and the server in turns, with more clients than the engine has places."""
    shares, rates, costs = [], [], []
    for turn in range(bench.turns):
        alone = bench.alone()
        with bench.server() as server:
            count = min(MAX_REQUESTS, max(2 * CONCURRENCY, int(alone.images_per_s * bench.seconds)))
            arrivals = at_once(bench.mix(server.url), requests=count, draw=bench.draw(turn))
            before = server.cpu_seconds()
            plan = Plan(server.url, arrivals, concurrency=CONCURRENCY)
            outcomes = send(plan)
            costs.append(1000 * (server.cpu_seconds() - before) / count)
            bench.compare(plan, outcomes, bench.checks)
        # Before and after: what changes on the machine meanwhile changes both.
        best = (alone.images_per_s + bench.alone().images_per_s) / 2
        rates.append(middle_rate(outcomes))
        shares.append(rates[-1] / best)
    cpu_target = 0.7 if bench.version is None else None
    return [
        Reading(PROMISE, "share of the engine alone", 100 * median(shares), 97, at_least=True, unit="%"),
        Reading(PROMISE, "images a second", median(rates)),
        Reading(PROMISE, "CPU an image, all of the server's processes", median(costs), cpu_target, unit="ms"),
    ]


def middle_rate(outcomes: Sequence[Outcome]) -> float:
    """Return images a second between the first and the last tenth of the good answers."""
    ends = sorted(outcome.ended_s for outcome in outcomes if outcome.kind == OK)
    first, last = len(ends) // 10, len(ends) - 1 - len(ends) // 10
    return (last - first) / (ends[last] - ends[first]) if last > first else 0.0
