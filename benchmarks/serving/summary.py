"""The figures of a run: rates, goodput, percentiles, errors by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.serving.outcome import LEFT, OK, Outcome

QUANTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p99.9": 99.9}


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run. Times are milliseconds, from when a request was due.

    Attributes:
        requests: sent.
        seconds: from the first request's due time to the last answer.
        images_per_s: of good answers, over `seconds`.
        answers_per_s: good ones.
        goodput_per_s: answers within the objective, a second.
        goodput_share: their share of all requests whose client stayed.
        objective_ms: the objective.
        kinds: how many requests ended how.
        latency_ms, queue_ms, preview_ms: percentiles of good answers by name, `mean` and `max` too; empty
            where nothing was measured.
        refusal_ms: of requests that got an error for an answer.
        lag_ms: of the client itself: from due to sent.
    """

    requests: int
    seconds: float
    images_per_s: float
    answers_per_s: float
    goodput_per_s: float
    goodput_share: float
    objective_ms: float
    kinds: Mapping[str, int]
    latency_ms: Mapping[str, float]
    queue_ms: Mapping[str, float]
    preview_ms: Mapping[str, float]
    refusal_ms: Mapping[str, float]
    lag_ms: Mapping[str, float]


def summarize(outcomes: Sequence[Outcome], objective_ms: float) -> Summary:
    """Compute the figures of a run.

    Args:
        outcomes: of one run, at least one.
        objective_ms: latency within which an answer counts towards goodput.
    """
    good = [outcome for outcome in outcomes if outcome.kind == OK]
    stayed = [outcome for outcome in outcomes if outcome.kind != LEFT]
    within = sum(1000 * outcome.latency_s <= objective_ms for outcome in good)
    first = min(outcome.due_s for outcome in outcomes)
    seconds = max(max(outcome.ended_s for outcome in outcomes) - first, 1e-9)
    return Summary(
        requests=len(outcomes),
        seconds=seconds,
        images_per_s=sum(outcome.images for outcome in good) / seconds,
        answers_per_s=len(good) / seconds,
        goodput_per_s=within / seconds,
        goodput_share=within / len(stayed) if stayed else 0.0,
        objective_ms=objective_ms,
        kinds=dict(Counter(outcome.kind for outcome in outcomes).most_common()),
        latency_ms=percentiles([1000 * outcome.latency_s for outcome in good]),
        queue_ms=percentiles([outcome.queue_ms for outcome in good if outcome.queue_ms is not None]),
        preview_ms=percentiles(
            [1000 * (outcome.preview_s - outcome.due_s) for outcome in good if outcome.preview_s is not None]
        ),
        refusal_ms=percentiles(
            [1000 * outcome.latency_s for outcome in outcomes if outcome.kind not in (OK, LEFT)]
        ),
        lag_ms=percentiles([1000 * (outcome.sent_s - outcome.due_s) for outcome in outcomes]),
    )


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return mean, percentiles and maximum by name; nothing of no values."""
    if not values:
        return {}
    found = np.percentile(values, list(QUANTILES.values()))
    return {
        "mean": float(np.mean(values)),
        **{name: float(value) for name, value in zip(QUANTILES, found, strict=True)},
        "max": float(max(values)),
    }
