"""A run as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.serving.outcome import OK, Outcome


def draw(outcomes: Sequence[Outcome], title: str, file: Path) -> None:
    """Draw a run: distribution of times, latency over time, and outcomes of each second.

    Args:
        outcomes: of one run.
        title: above the pictures.
        file: PNG, or another format that its ending names.
    """
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    figure.suptitle(title)
    distribution, course, rates = figure.subplots(1, 3)
    _distribution(distribution, outcomes)
    _course(course, outcomes)
    _rates(rates, outcomes)
    figure.savefig(file, dpi=110)


def _distribution(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    good = [outcome for outcome in outcomes if outcome.kind == OK]
    series = {
        "latency": [1000 * outcome.latency_s for outcome in good],
        "queue wait": [outcome.queue_ms for outcome in good if outcome.queue_ms is not None],
        "first preview": [
            1000 * (outcome.preview_s - outcome.due_s) for outcome in good if outcome.preview_s is not None
        ],
    }
    for name, values in series.items():
        if values:
            axes.ecdf(values, label=name)
    axes.set(xlabel="ms", ylabel="share of answers", title="times of good answers")
    axes.grid(alpha=0.3)
    if any(series.values()):
        axes.legend()


def _course(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        axes.scatter(
            [outcome.due_s for outcome in own], [1000 * outcome.latency_s for outcome in own], s=4, label=kind
        )
    axes.set(xlabel="due, s", ylabel="ms", title="latency over time", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()


def _rates(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    last = max(outcome.ended_s for outcome in outcomes)
    seconds = np.arange(0, np.ceil(last) + 1)
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        ended = [outcome.ended_s for outcome in outcomes if outcome.kind == kind]
        axes.stairs(np.histogram(ended, seconds)[0], seconds, label=kind)
    axes.set(xlabel="s", ylabel="a second", title="outcomes of each second", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
