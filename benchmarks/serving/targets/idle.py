"""An idle server: what a lone request costs beyond the engine, and the memory that it all takes."""

from __future__ import annotations

from statistics import median

from benchmarks.serving.client import Plan, send
from benchmarks.serving.ours import stub_server
from benchmarks.serving.targets.bench import Bench
from benchmarks.serving.targets.reading import Reading
from benchmarks.serving.toy import Tally
from benchmarks.serving.traffic import at_once

PROMISE = "idle"
WHAT = "request beyond the engine, p50"
TARGET_MS = 3.0
REQUESTS = 100


def measure(bench: Bench) -> list[Reading]:
    """Send requests one after the other, each when the last one is answered."""
    if bench.version is not None:
        return [Reading(PROMISE, WHAT, _beside_engine(bench), TARGET_MS, unit="ms")]
    overheads = []
    with stub_server() as server:
        mix = bench.mix(server.url)
        for turn in range(bench.turns):
            arrivals = at_once(mix, requests=REQUESTS, draw=bench.draw(turn))
            overheads.append(overhead_ms(Plan(server.url, arrivals, concurrency=1), server.tally))
        resident = server.process.usage().resident / 1e6
        torch = any("libtorch" in name for name in server.process.libraries())
    return [
        Reading(PROMISE, WHAT, median(overheads), TARGET_MS, unit="ms"),
        Reading(PROMISE, "resident memory", resident, 100, unit="MB"),
        Reading(PROMISE, "torch imported", torch, 0),
    ]


def overhead_ms(plan: Plan, tally: Tally) -> float:
    """Send equal requests one by one; return their median time less the model's own time, milliseconds."""
    before = tally.read().busy_ns
    latencies = [outcome.latency_s for outcome in send(plan)]
    busy_ms = (tally.read().busy_ns - before) / 1e6 / len(latencies)
    return 1000 * median(latencies) - busy_ms


def _beside_engine(bench: Bench) -> float:
    # A real engine's times vary from call to call, so each request counts by its own.
    overheads: list[float] = []
    with bench.server() as server:
        mix = bench.mix(server.url)
        arrivals = at_once(mix, requests=bench.turns * REQUESTS // 5, draw=bench.draw())
        for outcome in bench.send(Plan(server.url, arrivals, concurrency=1)):
            if outcome.compute_ms is not None:
                overheads.append(1000 * outcome.latency_s - outcome.compute_ms)
    return median(overheads)
