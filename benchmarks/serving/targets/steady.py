"""Steady load of short and long requests: latency, and time to the first preview."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from benchmarks.serving.client import Plan
from benchmarks.serving.summary import Summary, summarize
from benchmarks.serving.targets.bench import Bench
from benchmarks.serving.targets.reading import Reading
from benchmarks.serving.traffic import poisson

PROMISE = "steady load"
RATE = 100.0
STEPS = (5, 30)


def measure(bench: Bench) -> list[Reading]:
    """Send 100 requests a second of 5 to 30 steps: for whole images, and for previews as well."""
    whole: list[Summary] = []
    streamed: list[Summary] = []
    with bench.server() as server:
        mix = bench.mix(server.url, STEPS)
        for turn in range(bench.turns):
            arrivals = poisson(mix, rate=RATE, seconds=bench.seconds, draw=bench.draw(turn))
            for stream, summaries in ((False, whole), (True, streamed)):
                outcomes = bench.send(Plan(server.url, arrivals, stream=stream))
                summaries.append(summarize(outcomes, objective_ms=75))
    preview = [summary.preview_ms for summary in streamed if summary.preview_ms]
    failed = sum(summary.requests - summary.kinds.get("ok", 0) for summary in [*whole, *streamed])
    return [
        Reading(PROMISE, "latency p50", _median([one.latency_ms for one in whole], "p50"), 50, unit="ms"),
        Reading(PROMISE, "latency p95", _median([one.latency_ms for one in whole], "p95"), 75, unit="ms"),
        Reading(PROMISE, "first preview p95", _median(preview, "p95"), 25, unit="ms"),
        Reading(PROMISE, "latency p95 with previews", _median([one.latency_ms for one in streamed], "p95")),
        Reading(PROMISE, "not answered", failed, 0),
    ]


def _median(percentiles: list[Mapping[str, float]], name: str) -> float | None:
    values = [one[name] for one in percentiles if one]
    return median(values) if values else None
