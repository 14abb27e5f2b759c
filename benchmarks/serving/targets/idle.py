"""An idle server: what a lone request costs beyond the engine, and the memory that it all takes."""

from __future__ import annotations

from statistics import median

from benchmarks.serving.client import Plan
from benchmarks.serving.targets.bench import Bench
from benchmarks.serving.targets.reading import Reading
from benchmarks.serving.traffic import at_once

PROMISE = "idle"
REQUESTS = 100


def measure(bench: Bench) -> list[Reading]:
    """Send requests one after the other; the engine alone takes turns with the server."""
    overheads, resident = [], []
    count = REQUESTS if bench.version is None else REQUESTS // 5
    with bench.server() as server:
        mix = bench.mix(server.url)
        for turn in range(bench.turns):
            alone = bench.alone()
            arrivals = at_once(mix, requests=count, draw=bench.draw(turn))
            outcomes = bench.send(Plan(server.url, arrivals, concurrency=1))
            overheads.append(1000 * median(outcome.latency_s for outcome in outcomes) - alone.lone_ms)
            resident.append(server.usage().resident / 1e6)
        torch = any("libtorch" in name for name in server.libraries())
    readings = [Reading(PROMISE, "request beyond the engine, p50", median(overheads), 3, unit="ms")]
    if bench.version is None:
        readings += [
            Reading(PROMISE, "resident memory", max(resident), 100, unit="MB"),
            Reading(PROMISE, "torch imported", torch, 0),
        ]
    return readings
