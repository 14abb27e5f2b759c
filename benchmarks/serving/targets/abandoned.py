"""Clients that leave: what they wanted is no longer computed, and the next request does not wait for it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from itertools import islice
from statistics import median
from typing import Any

from benchmarks.serving import client
from benchmarks.serving.client import Plan
from benchmarks.serving.ours import CALL_S, stub_server
from benchmarks.serving.outcome import LEFT, Outcome
from benchmarks.serving.targets.bench import Bench
from benchmarks.serving.targets.reading import Reading
from benchmarks.serving.toy import Counts, Tally
from benchmarks.serving.traffic import Arrival, at_once

PROMISE = "abandoned"
REQUESTS = 50
STEPS = 500
LEAVE_S = 0.05
SETTLE_S = 0.3
TURNS = 5


def measure(bench: Bench) -> list[Reading]:
    """Abandon 50 long requests after 50 ms; count what is computed from then on, then send one that stays."""
    late_calls, late_rows, waits, left = [], [], [], 0
    with stub_server() as server:
        mix = bench.mix(server.url, (STEPS, STEPS))
        short = list(islice(dataclasses.replace(mix, steps=(1, 1)).bodies(bench.draw()), 2 * TURNS))
        for turn in range(TURNS):
            alone = _lone_ms(server.url, short[2 * turn])
            doomed = at_once(mix, requests=REQUESTS, draw=bench.draw(turn))
            doomed = [dataclasses.replace(arrival, leave_s=LEAVE_S) for arrival in doomed]
            outcomes, before = asyncio.run(_abandon(Plan(server.url, doomed), server.tally))
            waits.append(_lone_ms(server.url, short[2 * turn + 1]) - alone)
            time.sleep(SETTLE_S)
            after = server.tally.read()
            # The request that stays takes a call of one row itself.
            late_calls.append(after.calls - before.calls - 1)
            late_rows.append(after.rows - before.rows - 1)
            left += sum(outcome.kind == LEFT for outcome in outcomes)
    return [
        Reading(PROMISE, f"clients that left, of {TURNS * REQUESTS}", left, TURNS * REQUESTS, at_least=True),
        Reading(PROMISE, "calls begun for them after the last had left, most", max(late_calls), 1),
        Reading(PROMISE, "rows in these calls, most", max(late_rows)),
        Reading(PROMISE, "the next request waits, median", median(waits), 1000 * CALL_S, unit="ms"),
    ]


async def _abandon(plan: Plan, tally: Tally) -> tuple[list[Outcome], Counts]:
    outcomes = await client.run(plan)
    await asyncio.sleep(0)  # the loop's next turn closes what was aborted in this one
    return outcomes, tally.read()


def _lone_ms(url: str, body: Mapping[str, Any]) -> float:
    [outcome] = asyncio.run(client.run(Plan(url, [Arrival(0.0, body)], concurrency=1)))
    return 1000 * outcome.latency_s
