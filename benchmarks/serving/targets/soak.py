"""A long mixed load with all that goes wrong in one: memory stays flat, and nothing is left over."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.serving.client import ClientProcess, Plan
from benchmarks.serving.ours import StubServer, stub_server
from benchmarks.serving.outcome import LEFT, OK, Outcome
from benchmarks.serving.processes import gauges, get
from benchmarks.serving.stub import NAME, TASKS
from benchmarks.serving.targets.bench import STEPS, Bench
from benchmarks.serving.targets.reading import Reading
from benchmarks.serving.targets.swaps import Swapper
from benchmarks.serving.traffic import Arrival, Mix, poisson

PROMISE = "soak"
LOAD = 0.6
RANGE = (5, 30)
LEAVING, BAD, STREAMED = 0.1, 0.05, 0.25
SLICE_S = 10.0
SETTLE_S = 6.0
"""Longer than the server keeps an idle connection."""
BAD_FIELDS: Sequence[dict[str, Any]] = (
    {"steps": 0},
    {"class_id": 10**6},
    {"colour": "red"},
    {"cfg": "strong"},
    {"model": "nobody"},
    {"n": 10**6},
)
EXPECTED = {OK, LEFT, "invalid-input", "unknown-model"}


def measure(bench: Bench) -> list[Reading]:
    """Send mixed load in slices of ten seconds; look at the server between them."""
    rate = LOAD * bench.alone().images_per_s * STEPS / (sum(RANGE) / 2)
    slices = max(4, round(60 * bench.minutes / SLICE_S))
    draw = bench.draw()
    resident, unexpected, requests, different = [], 0, 0, 0
    with stub_server(versions=2, models=[f"{NAME}/all"]) as server:
        mix = bench.mix(server.url, RANGE)
        seconds = min(SLICE_S, 60 * bench.minutes / slices)
        _slice(server, mix, rate, seconds, draw)
        before = _left_over(server)
        for _ in range(slices):
            plans = _slice(server, mix, rate, seconds, draw)
            for plan, outcomes in plans:
                unexpected += sum(outcome.kind not in EXPECTED for outcome in outcomes)
                requests += len(outcomes)
                different += bench.compare(plan, outcomes, bench.checks // 3)
            resident.append(server.process.usage().resident)
        after = _left_over(server)
    quarter = math.ceil(len(resident) / 4)
    growth = median(resident[-quarter:]) / median(resident[quarter : 2 * quarter]) - 1
    leaks = [
        Reading(PROMISE, f"{what} more than before", max(0.0, after[what] - before[what]), 0)
        for what in ("rows waiting or active", "open descriptors", "tasks", "threads")
    ]
    return [
        Reading(PROMISE, f"requests in {bench.minutes:g} minutes", requests),
        Reading(PROMISE, "not answered as they should be", unexpected, 0),
        Reading(PROMISE, "memory, last quarter against second", 100 * growth, 3, unit="%"),
        *leaks,
    ]


def _slice(
    server: StubServer, mix: Mix, rate: float, seconds: float, draw: random.Random
) -> list[tuple[Plan, list[Outcome]]]:
    """Send one slice, some of it streamed and all of it around two swaps; return what came of it."""
    plans = []
    for share, stream in ((STREAMED, True), (1 - STREAMED, False)):
        arrivals = poisson(mix, rate=rate * share, seconds=seconds, draw=draw)
        plans.append(Plan(server.url, [_troubled(one, draw) for one in arrivals], stream=stream))
    clients = [ClientProcess.start(plan) for plan in plans]
    swapper = Swapper(server.url, seconds / 3, swaps=2)
    swapper.start()
    results = [(plan, client.outcomes()) for plan, client in zip(plans, clients, strict=True)]
    swapper.finish()
    return results


def _troubled(arrival: Arrival, draw: random.Random) -> Arrival:
    """Let some clients leave in the middle, and some ask for what cannot be."""
    fate = draw.random()
    if fate < LEAVING:
        return dataclasses.replace(arrival, leave_s=draw.uniform(0, 0.1))
    if fate < LEAVING + BAD:
        return dataclasses.replace(arrival, body={**arrival.body, **draw.choice(BAD_FIELDS)})
    return arrival


def _left_over(server: StubServer) -> dict[str, float]:
    """Return what an idle server holds, once all connections have closed."""
    time.sleep(SETTLE_S)
    samples, usage = gauges(server.url), server.process.usage()
    return {
        "rows waiting or active": samples["ddo_queue_rows"] + samples["ddo_active_rows"],
        "open descriptors": usage.descriptors,
        "tasks": int(get(server.url, TASKS)[1]),
        "threads": usage.threads,
    }
