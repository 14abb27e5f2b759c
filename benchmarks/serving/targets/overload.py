"""More than the engine can do: what is accepted is done in time, the rest is refused at once."""

from __future__ import annotations

from statistics import median

from benchmarks.serving.client import Plan
from benchmarks.serving.outcome import OK, Outcome
from benchmarks.serving.targets.bench import STEPS, Bench
from benchmarks.serving.targets.reading import Reading
from benchmarks.serving.traffic import poisson

PROMISE = "overload"
RANGE = (5, 30)
LOAD = 1.5
DEADLINE_MS = 250
REFUSED = 429


def measure(bench: Bench) -> list[Reading]:
    """Send half as much again as the engine can do, each request with a deadline."""
    shares: list[float] = []
    refusals: list[float] = []
    lateness = [0.0]
    failed = 0
    for turn in range(bench.turns):
        steps_per_s = bench.alone().images_per_s * STEPS
        with bench.server() as server:
            rate = LOAD * steps_per_s / (sum(RANGE) / 2)
            mix = bench.mix(server.url, RANGE, deadline_ms=DEADLINE_MS)
            arrivals = poisson(mix, rate=rate, seconds=bench.seconds, draw=bench.draw(turn))
            plan = Plan(server.url, arrivals)
            outcomes = bench.send(plan)
        accepted = [outcome for outcome in outcomes if outcome.kind == OK]
        in_time = [outcome for outcome in accepted if _took_ms(outcome) <= DEADLINE_MS]
        done = sum(arrivals[outcome.index].body["steps"] for outcome in in_time)
        shares.append(done / max(bench.seconds, outcomes[-1].ended_s) / steps_per_s)
        lateness += [_took_ms(outcome) / DEADLINE_MS - 1 for outcome in accepted]
        refused = [outcome for outcome in outcomes if outcome.status == REFUSED]
        refusals += [_took_ms(outcome) for outcome in refused]
        failed += len(outcomes) - len(accepted) - len(refused)
    return [
        Reading(PROMISE, "goodput, share of the engine's steps", 100 * median(shares), 90, True, "%"),
        Reading(PROMISE, "slowest refusal", max(refusals, default=None), 50, unit="ms"),
        Reading(PROMISE, "refused", len(refusals)),
        Reading(PROMISE, "latest accepted request, past its deadline", 100 * max(lateness), 10, unit="%"),
        Reading(PROMISE, "accepted and not answered in time, or failed", failed, 0),
    ]


def _took_ms(outcome: Outcome) -> float:
    # From when it was sent: deadline and refusal are the server's, which no request reaches before.
    return 1000 * (outcome.ended_s - outcome.sent_s)
